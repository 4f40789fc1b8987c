"""Is a share of the served traffic drawn at random, and does its log repeat? On the default graph.

Starts the default graph with exploration and a decision log, sends questions that have one correct answer,
and rates each response by it. Prints how many decisions were drawn, whether their probabilities sum to 1, and
whether a replay gives the same draws; exit code 1 where anything differs. The log stays in the folder.
Simulated experts repeat the question, so none of their responses is right; the draws are those of the graph.

python -m experiments.explored_graph --out FOLDER [--share 0.1] [--floor 0.5] [--requests 1200] [--simulated]
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from cluster.local.readiness import wait_until_ready
from cluster.local.run import serving
from cluster.pocket.questions import Question, questions
from cluster.pocket.train_policy import MOST_TOKENS
from experiments.simulated_experts import default_graph, simulate_experts, user_configs
from router.core import Exploration
from router.learning.exploration import draw
from router.learning.log import read_folders
from router.learning.logged import greedy
from router.learning.record import DecisionRecord

CHAT, FEEDBACK = "/v1/chat/completions", "/v1/feedback"
AT_ONCE = 16
LONGEST_S = 60.0
NEAR = 1e-9
"""Between a probability and its replay."""


def explored_graph(folder: Path, *, share: float, floor: float, simulated: bool = False) -> dict[str, Any]:
    """Return the default graph with exploration and a log with texts."""
    graph = default_graph()
    if simulated:
        simulate_experts(graph)
    parts = user_configs(graph)
    parts["Ingress"]["log"] = {"folder": str(folder.resolve()), "queries": True}
    parts["Router"]["explore"] = {"share": share, "quality_floor": floor}
    return graph


async def send(url: str, asked: Sequence[Question]) -> int:
    """Send the questions and rate their responses; returns how many were right, failures are none."""
    slots = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=LONGEST_S) as client:

        async def one(question: Question) -> bool:
            async with slots:
                try:
                    return await _rated(client, question)
                except httpx.HTTPError as error:
                    print(f"a request failed: {error!r}", file=sys.stderr)
                    return False

        return sum(await asyncio.gather(*map(one, asked)))


async def _rated(client: httpx.AsyncClient, question: Question) -> bool:
    messages = [{"role": "user", "content": question.query}]
    body = {"model": "auto", "messages": messages, "max_tokens": MOST_TOKENS, "temperature": 0}
    response = await client.post(CHAT, json=body)
    response.raise_for_status()
    right: bool = response.json()["choices"][0]["message"]["content"].strip() == question.reference
    rating = {"request_id": response.headers["x-request-id"], "quality": float(right)}
    (await client.post(FEEDBACK, json=rating)).raise_for_status()
    return right


def findings(records: Sequence[DecisionRecord], share: float) -> dict[str, Any]:
    """Return what the log shows of the draws."""
    drawn = sum(record.reason == "explored" for record in records)
    spread = 1.96 * math.sqrt(share * (1 - share) / max(1, len(records)))
    found = drawn / max(1, len(records))
    sums = [sum((record.propensities or {}).values()) for record in records]
    return {
        "decisions": len(records),
        "drawn": drawn,
        "share": found,
        "share_within_binomial_interval": abs(found - share) <= spread,
        "sums_are_1": all(abs(total - 1) <= NEAR for total in sums),
        "replays_differ": sum(not repeats(record) for record in records),
    }


def repeats(record: DecisionRecord) -> bool:
    """Return whether the draw, made again from the record alone, is the same."""
    made, known, scores = record.exploration, record.propensities, record.scores
    if made is None or known is None or scores is None:
        return False
    again = draw(
        Exploration(made.share, made.quality_floor, made.seed),
        made.unit,
        chosen=greedy(known),
        scores={name: score for name, score in scores.items() if score is not None},
        eligible=record.ranking,
    )
    return again.action == record.action and _near(again.propensities, known)


def _near(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one.keys() == other.keys() and all(abs(one[name] - other[name]) <= NEAR for name in one)


def main() -> int:
    """Start the graph, send the questions, and print what the log shows."""
    parser = argparse.ArgumentParser(prog="python -m experiments.explored_graph", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the log")
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--floor", type=float, default=0.5, help="quality floor of the draw")
    parser.add_argument("--requests", type=int, default=1200)
    parser.add_argument("--simulated", action="store_true", help="simulated experts instead of engines")
    parser.add_argument("--port", type=int, default=8150)
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    asked = questions("heldout", n=options.requests, seed=0)
    graph = explored_graph(
        options.out / "decisions", share=options.share, floor=options.floor, simulated=options.simulated
    )
    with tempfile.TemporaryDirectory(prefix="to-router-explored-") as folder:
        file = Path(folder) / "serve_config.yaml"
        file.write_text(yaml.safe_dump(graph, sort_keys=False), encoding="utf-8")
        log = options.out / "serve.log"
        with serving(file, port=options.port, log=log) as (url, process):
            if not wait_until_ready(url, lambda: process.poll() is None, print):
                print(f"the graph is not ready; see {log}", file=sys.stderr)
                return 1
            right = asyncio.run(send(url, asked))
    records = [one for one in read_folders([options.out / "decisions"]) if isinstance(one, DecisionRecord)]
    found = {"right": right / len(asked), **findings(records, options.share)}
    print(json.dumps(found, indent=1))
    fine = found["share_within_binomial_interval"] and found["sums_are_1"] and not found["replays_differ"]
    return int(not fine or found["decisions"] != len(asked))


if __name__ == "__main__":
    sys.exit(main())
