"""The paper's three claims, measured on the served pocket experts with held-out questions.

    python -m cluster.local.claims [--endpoint URL] [--n 400] [--rounds 5] [--out FOLDER]

Asks `auto`, every expert alone and a random choice the same questions in turn, round by round, so
that a machine that drifts drifts for all. Writes claims.json and claims.md. Without `--endpoint`
it starts the default graph itself.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from cluster.local.claims_report import Answered, Round, as_markdown, speedup, summarise
from cluster.local.make_policy import EXPERTS, MOST_TOKENS
from cluster.local.questions import Question, questions
from cluster.local.run import ROOT, serving, wait_until_ready

PORT = 8138
CONCURRENCY = 1
"""Where nothing queues: what a query costs in time is what its expert and its routing take."""
LEVELS = (1, 2, 4, 8, 16)
"""Requests at a time at which `auto` and the generalist are compared for speed."""
HELD_OUT_SEED = 7
ANSWERED_WITHIN_S = 120.0
JSON = {"content-type": "application/json"}


class Asking:
    """Questions to one endpoint, `at_a_time` of them in flight, each lane with a connection of its own.

    Plain `http.client`: the client shares the machine with what it measures, and shall cost little.
    """

    def __init__(self, url: str, at_a_time: int) -> None:
        self._host = url.removeprefix("http://")
        self._lanes = ThreadPoolExecutor(at_a_time, initializer=self._connect)
        self._own = threading.local()
        self._connections: list[HTTPConnection] = []

    def _connect(self) -> None:
        self._own.connection = HTTPConnection(self._host, timeout=ANSWERED_WITHIN_S)
        self._connections.append(self._own.connection)

    def __enter__(self) -> "Asking":
        return self

    def __exit__(self, *why: object) -> None:
        self._lanes.shutdown()
        for connection in self._connections:
            connection.close()

    def all(self, asked: Sequence[Question], models: Sequence[str]) -> Round:
        """Ask every question of its model.

        Raises:
            RuntimeError: an answer was no success.
        """
        started = time.perf_counter()
        answers = list(self._lanes.map(self._ask, asked, models))
        return Round(answers, time.perf_counter() - started)

    def _ask(self, question: Question, model: str) -> Answered:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question.query}],
            "max_tokens": MOST_TOKENS,
            "temperature": 0,
        }
        connection: HTTPConnection = self._own.connection
        connection.request("POST", "/v1/chat/completions", json.dumps(body), JSON)
        response = connection.getresponse()
        data = json.loads(response.read())
        if response.status != 200:
            raise RuntimeError(f"{model} answered {response.status}: {data}")
        return Answered(
            question,
            response.headers["x-router-expert"],
            data["choices"][0]["message"]["content"].strip() == question.reference,
            data["usage"]["prompt_tokens"],
            data["usage"]["completion_tokens"],
            response.headers["x-router-reason"],
        )


def measure(url: str, *, n: int, rounds: int, concurrency: int) -> dict[str, list[Round]]:
    """Rounds of every way to serve the questions, one after the other in each round."""
    asked = questions("heldout", n=n, seed=HELD_OUT_SEED)
    rng = random.Random(0)
    ways: dict[str, list[str]] = {"auto": ["auto"] * n}
    ways |= {expert: [expert] * n for expert in EXPERTS}
    ways["random"] = [rng.choice(EXPERTS) for _ in range(n)]
    measured: dict[str, list[Round]] = defaultdict(list)
    with Asking(url, concurrency) as asking:
        for models in ways.values():  # warm every path once, uncounted
            asking.all(asked[:32], models[:32])
        for number in range(rounds):
            for way in rng.sample(list(ways), len(ways)):
                measured[way].append(asking.all(asked, ways[way]))
                print(f"round {number + 1}/{rounds}: {way}", flush=True)
    return measured


def measure_levels(url: str, *, n: int, rounds: int) -> dict[int, dict[str, list[float]]]:
    """Queries per second of `auto` and of the generalist, in turn, at each of `LEVELS`."""
    asked = questions("heldout", n=n, seed=HELD_OUT_SEED + 1)
    rates: dict[int, dict[str, list[float]]] = {}
    for level in LEVELS:
        rates[level] = {"auto": [], "generalist": []}
        with Asking(url, level) as asking:
            for number in range(rounds):
                for way in ("auto", "generalist") if number % 2 else ("generalist", "auto"):
                    rates[level][way].append(n / asking.all(asked, [way] * n).seconds)
        print(f"{level} at a time: {speedup(rates[level]):+.1%}", flush=True)
    return rates


def _figures(url: str, options: argparse.Namespace) -> dict[str, Any]:
    how = {"n": options.n, "rounds": options.rounds}
    measured = measure(url, **how, concurrency=options.concurrency)
    rates = measure_levels(url, n=min(options.n, 100), rounds=options.rounds)
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
