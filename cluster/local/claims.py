"""The paper's three claims, measured on the served pocket experts with held-out questions.

    python -m cluster.local.claims [--endpoint URL] [--n 400] [--rounds 5] [--out FOLDER]

Asks `auto`, every expert alone and a random choice the same questions in turn, round by round, so
that a machine that drifts drifts for all. Writes claims.json and claims.md. Without `--endpoint`
it starts the default graph itself.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from cluster.local.make_policy import EXPERTS, LOCAL
from cluster.local.questions import Question, questions
from cluster.local.run import ROOT, serving, wait_until_ready

PORT = 8138
CONCURRENCY = 1
"""Where nothing queues: what a query costs in time is what its expert and its routing take."""
LEVELS = (1, 2, 4, 8, 16)
"""Requests at a time at which `auto` and the generalist are compared for speed."""
HELD_OUT_SEED = 7


@dataclass(frozen=True, slots=True)
class Answered:
    """One question's answer as it was served."""

    question: Question
    expert: str
    right: bool
    prompt_tokens: int
    completion_tokens: int
    reason: str


@dataclass(frozen=True, slots=True)
class Round:
    """All questions asked once."""

    answers: list[Answered]
    seconds: float


async def ask_all(
    client: httpx.AsyncClient, asked: Sequence[Question], models: Sequence[str], concurrency: int
) -> Round:
    """Ask every question of its model, `concurrency` at a time."""
    places = asyncio.Semaphore(concurrency)

    async def ask(question: Question, model: str) -> Answered:
        async with places:
            body = {
                "model": model,
                "messages": [{"role": "user", "content": question.query}],
                "max_tokens": 16,
                "temperature": 0,
            }
            response = await client.post("/v1/chat/completions", json=body)
            response.raise_for_status()
        data = response.json()
        text = data["choices"][0]["message"]["content"].strip()
        return Answered(
            question,
            response.headers["x-router-expert"],
            text == question.reference,
            data["usage"]["prompt_tokens"],
            data["usage"]["completion_tokens"],
            response.headers["x-router-reason"],
        )

    started = time.perf_counter()
    answers = await asyncio.gather(*(ask(q, m) for q, m in zip(asked, models, strict=True)))
    return Round(list(answers), time.perf_counter() - started)


async def measure(url: str, *, n: int, rounds: int, concurrency: int) -> dict[str, list[Round]]:
    """Rounds of every way to serve the questions, one after the other in each round."""
    asked = questions("heldout", n=n, seed=HELD_OUT_SEED)
    rng = random.Random(0)
    ways: dict[str, list[str]] = {"auto": ["auto"] * n}
    ways |= {expert: [expert] * n for expert in EXPERTS}
    ways["random"] = [rng.choice(EXPERTS) for _ in range(n)]
    measured: dict[str, list[Round]] = defaultdict(list)
    async with httpx.AsyncClient(
        base_url=url, timeout=120, limits=httpx.Limits(max_connections=concurrency)
    ) as client:
        for models in ways.values():  # warm every path once, uncounted
            await ask_all(client, asked[:32], models[:32], concurrency)
        for number in range(rounds):
            for way in rng.sample(list(ways), len(ways)):
                measured[way].append(await ask_all(client, asked, ways[way], concurrency))
                print(f"round {number + 1}/{rounds}: {way}", flush=True)
    return measured


async def measure_levels(url: str, *, n: int, rounds: int) -> dict[int, dict[str, list[float]]]:
    """Queries per second of `auto` and of the generalist, in turn, at each of `LEVELS`."""
    asked = questions("heldout", n=n, seed=HELD_OUT_SEED + 1)
    rates: dict[int, dict[str, list[float]]] = {}
    for level in LEVELS:
        rates[level] = {"auto": [], "generalist": []}
        async with httpx.AsyncClient(
            base_url=url, timeout=120, limits=httpx.Limits(max_connections=level)
        ) as client:
            for number in range(rounds):
                for way in ("auto", "generalist") if number % 2 else ("generalist", "auto"):
                    done = await ask_all(client, asked, [way] * n, level)
                    rates[level][way].append(n / done.seconds)
        print(f"{level} at a time: {_speedup(rates[level]):+.1%}", flush=True)
    return rates


def _speedup(rates: dict[str, list[float]]) -> float:
    pairs = zip(rates["auto"], rates["generalist"], strict=True)
    return statistics.median(auto / general for auto, general in pairs) - 1


def summarise(
    measured: dict[str, list[Round]], by_level: dict[int, dict[str, list[float]]]
) -> dict[str, Any]:
    """Figures of every way, and the three claims."""
    prices = {
        expert["name"]: expert["price_per_mtok"]
        for expert in yaml.safe_load((LOCAL / "experts.yaml").read_text(encoding="utf-8"))["experts"]
    }
    table: dict[str, dict[str, Any]] = {}
    for way, rounds in measured.items():
        answers = rounds[0].answers
        usd = [
            (a.prompt_tokens * prices[a.expert]["input"] + a.completion_tokens * prices[a.expert]["output"])
            / 1e6
            for a in answers
        ]
        rates = [len(r.answers) / r.seconds for r in rounds]
        tokens = [sum(a.completion_tokens for a in r.answers) / r.seconds for r in rounds]
        table[way] = {
            "quality": statistics.fmean(a.right for r in rounds for a in r.answers),
            "usd_per_1000_queries": 1000 * statistics.fmean(usd),
            "queries_per_s": statistics.median(rates),
            "queries_per_s_range": [min(rates), max(rates)],
            "completion_tokens_per_s": statistics.median(tokens),
        }
    auto, general = table["auto"], table["generalist"]
    best = max(EXPERTS, key=lambda expert: float(table[expert]["quality"]))
    paired = [a.seconds for a in measured["auto"]], [g.seconds for g in measured["generalist"]]
    speedups = [general_s / auto_s for auto_s, general_s in zip(*paired, strict=True)]
    right_by = {way: [a.right for a in rounds[0].answers] for way, rounds in measured.items()}
    answerable = [any(right_by[expert][i] for expert in EXPERTS) for i in range(len(right_by["auto"]))]
    routed_right = sum(r for r, possible in zip(right_by["auto"], answerable, strict=True) if possible)
    return {
        "n_questions": len(right_by["auto"]),
        "rounds": len(measured["auto"]),
        "ways": table,
        "best_single": best,
        "claims": {
            "quality_gain_over_best_single": auto["quality"] - table[best]["quality"],
            "cost_saved_against_generalist": 1
            - auto["usd_per_1000_queries"] / general["usd_per_1000_queries"],
            "more_queries_per_s_than_generalist": statistics.median(speedups) - 1,
            "more_queries_per_s_range": [min(speedups) - 1, max(speedups) - 1],
            "routed_to_a_right_expert_where_one_exists": routed_right / sum(answerable),
        },
        "right_by_task": _by_task(measured),
        "routed_by_task": _routed(measured["auto"][0].answers),
        "without_the_router": sum(a.reason != "routed" for r in measured["auto"] for a in r.answers),
        "queries_per_s_by_concurrency": {
            level: {**{way: statistics.median(found) for way, found in of.items()}, "more": _speedup(of)}
            for level, of in by_level.items()
        },
    }


def _by_task(measured: dict[str, list[Round]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for way, rounds in measured.items():
        for answer in rounds[0].answers:
            found[way][answer.question.task].append(answer.right)
    return {
        way: {task: statistics.fmean(right) for task, right in tasks.items()} for way, tasks in found.items()
    }


def _routed(answers: Sequence[Answered]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(EXPERTS, 0))
    for answer in answers:
        found[answer.question.task][answer.expert] += 1
    return dict(found)


def as_markdown(figures: dict[str, Any]) -> str:
    """The tables, for docs and terminals."""
    claims = figures["claims"]
    setting = (
        f"{figures['n_questions']} held-out questions, {figures['rounds']} rounds in turn, "
        f"{figures['concurrency']} at a time, one machine with 2 cores and no GPU for client, graph "
        "and engines."
    )
    lines = [
        "# The paper's claims on the served pocket experts",
        "",
        "Made by `make claims`; every figure comes from that command's last run.",
        setting,
        "",
        "| served by | quality | US$ per 1,000 queries | queries/s (median, range) | completion tokens/s |",
        "|---|---|---|---|---|",
    ]
    for way, row in figures["ways"].items():
        low, high = row["queries_per_s_range"]
        lines.append(
            f"| {way} | {row['quality']:.3f} | {row['usd_per_1000_queries']:.5f} | "
            f"{row['queries_per_s']:.1f} ({low:.1f}–{high:.1f}) | {row['completion_tokens_per_s']:.0f} |"
        )
    low, high = claims["more_queries_per_s_range"]
    quality = f"`auto` answers {100 * claims['quality_gain_over_best_single']:+.1f} points more right"
    rate = (
        f"{claims['more_queries_per_s_than_generalist']:+.1%} queries per second against the generalist alone"
    )
    right = f"{claims['routed_to_a_right_expert_where_one_exists']:.1%} of the questions that any expert"
    kinds = list(figures["right_by_task"]["auto"])
    lines += [
        "",
        f"- Quality: {quality} than the best single expert ({figures['best_single']}).",
        f"- Cost: {claims['cost_saved_against_generalist']:.1%} less than the generalist alone.",
        f"- Efficiency: {rate} (paired by round, {low:+.1%} to {high:+.1%}).",
        f"- Routing: {right} answers right went to one that does.",
        "",
        f"Decisions of `auto` that came too late and were taken from the static ranking: "
        f"{figures['without_the_router']} of {figures['rounds'] * figures['n_questions']}.",
        "",
        "Queries per second by requests at a time, in turn with each other.",
        "All engines share the machine's cores here, and models this small cost time by the step, not by the "
        "token: what the generalist answers in one batch, `auto` spreads over three engines.",
        "",
        "| at a time | auto | generalist alone | more |",
        "|---|---|---|---|",
        *(
            f"| {level} | {row['auto']:.1f} | {row['generalist']:.1f} | {row['more']:+.1%} |"
            for level, row in figures["queries_per_s_by_concurrency"].items()
        ),
        "",
        "Share of right answers by kind of question:",
        "",
        f"| served by | {' | '.join(kinds)} |",
        "|---" * (1 + len(kinds)) + "|",
    ]
    lines += [
        f"| {way} | " + " | ".join(f"{right:.3f}" for right in tasks.values()) + " |"
        for way, tasks in figures["right_by_task"].items()
    ]
    lines += [
        "",
        "Where `auto` sent them:",
        "",
        "| kind | " + " | ".join(EXPERTS) + " |",
        "|---" * (1 + len(EXPERTS)) + "|",
    ]
    lines += [
        f"| {task} | " + " | ".join(str(count) for count in counts.values()) + " |"
        for task, counts in figures["routed_by_task"].items()
    ]
    return "\n".join(lines) + "\n"


def _figures(url: str, options: argparse.Namespace) -> dict[str, Any]:
    how = {"n": options.n, "rounds": options.rounds}
    measured = asyncio.run(measure(url, **how, concurrency=options.concurrency))
    rates = asyncio.run(measure_levels(url, n=min(options.n, 100), rounds=options.rounds))
    return {"concurrency": options.concurrency, **summarise(measured, rates)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 when the graph does not come up."""
    parser = argparse.ArgumentParser(prog="python -m cluster.local.claims", description=__doc__)
    parser.add_argument("--endpoint", help="a running ingress, such as http://127.0.0.1:8000")
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=CONCURRENCY)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    options = parser.parse_args(arguments)
    if options.endpoint:
        figures = _figures(options.endpoint, options)
    else:
        with serving(ROOT / "serve_config.yaml", port=PORT, log=ROOT / "var" / "claims.log") as (
            url,
            process,
        ):
            if not wait_until_ready(url, lambda: process.poll() is None, print):
                print("the graph did not come up; see var/claims.log", file=sys.stderr)
                return 1
            figures = _figures(url, options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "claims.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (options.out / "claims.md").write_text(as_markdown(figures), encoding="utf-8")
    print(as_markdown(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
