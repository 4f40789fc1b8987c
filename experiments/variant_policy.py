"""A policy over the chat model and its SQL adapter, one engine: shares, quality and cost.

    python -m cluster.pocket.train_adapter
    python -m experiments.variant_policy [--count 24] [--part collect|policy] [--out var/variant-policy]

Both answer every query: half of them request SQL, half are open. A policy is trained on one split and
evaluated on another, whose tables, phrasings and kinds of open queries are new to adapter and policy.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from cluster.local.run import serving
from cluster.pocket.open_questions import LONG_TEXTS, open_questions
from cluster.pocket.questions import Question, write_questions
from cluster.pocket.sql_questions import sql_questions
from cluster.pocket.train_adapter import FOLDER
from experiments.start_served import run
from experiments.variants import await_experts, graph, write

PORT = 8244
EXPERTS = ("chat", "chat-sql")
TOKENS = {"sql": 32, "open": 64}
QUALITY = {"sql": "contains", "open": "bertsim"}
PRICE = {"input": 0.30, "output": 0.60}
"""US dollars per million tokens: of both, as they share an engine."""
SPLITS = ("policy", "heldout")


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect, label, train and evaluate; prints the table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.variant_policy", description=__doc__)
    parser.add_argument("--count", type=int, default=24, help="queries of each kind and split")
    parser.add_argument("--part", choices=("collect", "policy"), help="only this one; default: both")
    parser.add_argument("--out", type=Path, default=Path("var/variant-policy"))
    options = parser.parse_args(arguments)
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if options.part != "policy":
        collect(out, options.count)
    if options.part != "collect":
        print(evaluate(out))
    return 0


def collect(out: Path, count: int) -> None:
    """Let both experts answer all queries."""
    data = graph({"sql": FOLDER})
    data["applications"][0]["deployments"][0]["user_config"]["experts"] = {
        "chat": {"app": "expert-chat"},
        "chat-sql": {"app": "expert-chat", "adapter": "sql"},
    }
    with serving(write(data, out), port=PORT, log=out / "serve.log") as (url, process):
        await_experts(url, process)
        send(url, out, count)


def send(url: str, out: Path, count: int) -> None:
    """Send all queries to both experts of a running graph."""
    for split in SPLITS:
        for kind, drawn in queries(split, count).items():
            file = out / f"{split}-{kind}-queries.jsonl"
            write_questions(drawn, file)
            target = ("--endpoint", f"{url}/v1", "--queries", file, "--experts", ",".join(EXPERTS))
            limits = ("--max-tokens", TOKENS[kind], "--concurrency", 16)
            run("collect", *target, *limits, "--out", out / f"{split}-{kind}-answers.jsonl")


def queries(split: str, count: int) -> dict[str, list[Question]]:
    """So many queries of each kind."""
    fitting = [question for question in open_questions(split) if question.kind != LONG_TEXTS]
    chosen = random.Random(f"open/{split}").sample(fitting, min(count, len(fitting)))
    return {"sql": sql_questions(split, n=count, seed=1), "open": chosen}


def evaluate(out: Path) -> str:
    """Label the answers, train on one split, evaluate on the other, and return the table."""
    outcomes = {}
    for split in SPLITS:
        lines = []
        for kind, quality in QUALITY.items():
            labelled = out / f"{split}-{kind}.jsonl"
            answers = out / f"{split}-{kind}-answers.jsonl"
            run("label", "--outcomes", answers, "--quality", quality, "--out", labelled)
            lines.append(labelled.read_text(encoding="utf-8"))
        outcomes[split] = out / f"{split}.jsonl"
        outcomes[split].write_text("".join(lines), encoding="utf-8")
    pool = out / "pool.yaml"
    entries = [{"name": name, "price_per_mtok": PRICE, "context_window": 2048} for name in EXPERTS]
    pool.write_text(yaml.safe_dump({"experts": entries}), encoding="utf-8")
    made = ("--method", "auto", "--encoder", "static", "--plans", "none", "--pool", pool)
    run("train", "--outcomes", outcomes["policy"], *made, "--out", out / "policy")
    run("evaluate", "--policy", out / "policy", "--outcomes", outcomes["heldout"], "--out", out / "report")
    report = json.loads((out / "report" / "report.json").read_text(encoding="utf-8"))
    return table(report, {kind: mean_quality(out / f"heldout-{kind}.jsonl") for kind in QUALITY})


def mean_quality(outcomes: Path) -> dict[str, float]:
    """Expert → mean quality of its answers."""
    found: dict[str, list[float]] = {}
    for line in outcomes.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.setdefault(row["expert"], []).append(row["quality"])
    return {expert: fmean(values) for expert, values in found.items()}


def table(report: dict[str, Any], qualities: dict[str, dict[str, float]]) -> str:
    """The figures as a Markdown table."""
    kinds, rows = tuple(qualities), {**report["experts"], "policy": report["policy"]}
    lines = [f"| | quality | {' | '.join(kinds)} | cost per 1,000 requests, US$ |", "|---|---|---|---|---|"]
    for name, of in rows.items():
        known = [f"{qualities[kind][name]:.3f}" if name in qualities[kind] else "" for kind in kinds]
        lines.append(f"| {name} | {of['quality']:.3f} | {' | '.join(known)} | {1000 * of['cost_usd']:.4f} |")
    sent = [f"{task}: sent {of['sent']}" for task, of in report["winners"].items()]
    return "\n".join([*lines, "", *sent])


if __name__ == "__main__":
    sys.exit(main())
