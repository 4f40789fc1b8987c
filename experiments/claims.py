"""The paper's three claims, measured on the served pocket experts with held-out questions.

    python -m experiments.claims [--endpoint URL] [--n 400] [--rounds 5] [--out FOLDER]

Asks `auto`, every expert alone and a random choice the same questions in turn, round by round, so
that a machine that drifts drifts for all. Every round has questions of its own, so that the router's
cache of embeddings answers none of them. Writes claims.json and claims.md. Without `--endpoint` it
starts the default graph itself.
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
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from cluster.local.readiness import wait_until_ready
from cluster.local.run import ROOT, serving
from cluster.pocket.questions import Question, QuestionError, questions
from cluster.pocket.train_policy import EXPERTS, MOST_TOKENS
from experiments.claims_report import Answered, Round, as_markdown, speedup, summarise

PORT = 8138
CONCURRENCY = 1
"""Where nothing queues: what a query costs in time is what its expert and its routing take."""
LEVELS = (1, 2, 4, 8, 16)
"""Requests at a time at which `auto` and the generalist are compared for speed."""
HELD_OUT_SEED = 7
WARM_UP = 32
FOR_SPEED = 100
"""Questions of a round, at most, where speed alone is asked for."""
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


def measure(url: str, asked: Sequence[Sequence[Question]], *, concurrency: int) -> dict[str, list[Round]]:
    """Every way to serve each round's questions, one after the other."""
    warm_up, n, rng = questions("policy", n=WARM_UP, seed=HELD_OUT_SEED), len(asked[0]), random.Random(0)
    ways: dict[str, list[str]] = {"auto": ["auto"] * n}
    ways |= {expert: [expert] * n for expert in EXPERTS}
    ways["random"] = [rng.choice(EXPERTS) for _ in range(n)]
    measured: dict[str, list[Round]] = defaultdict(list)
    with Asking(url, concurrency) as asking:
        for models in ways.values():  # warm every path once, uncounted
            asking.all(warm_up, list(islice(cycle(models), WARM_UP)))
        for number, new in enumerate(asked, 1):
            for way in rng.sample(list(ways), len(ways)):
                measured[way].append(asking.all(new, ways[way]))
                print(f"round {number}/{len(asked)}: {way}", flush=True)
    return measured


def measure_levels(url: str, *, n: int, rounds: int) -> dict[int, dict[str, list[float]]]:
    """Queries per second of `auto` and of the generalist, in turn, at each of `LEVELS`.

    Speed alone is asked for, and the held-out split has not so many questions: these are the train split's.
    """
    asked = iter(questions("train", n=n * rounds * len(LEVELS), seed=HELD_OUT_SEED))
    rates: dict[int, dict[str, list[float]]] = {}
    for level in LEVELS:
        rates[level] = in_turn(url, [list(islice(asked, n)) for _ in range(rounds)], at_a_time=level)
        print(f"{level} at a time: {speedup(rates[level]):+.1%}", flush=True)
    return rates


def in_turn(url: str, asked: Sequence[Sequence[Question]], *, at_a_time: int) -> dict[str, list[float]]:
    """Queries per second of `auto` and of the generalist for each list, one after the other."""
    rates: dict[str, list[float]] = {"auto": [], "generalist": []}
    with Asking(url, at_a_time) as asking:
        for number, some in enumerate(asked):
            for way in ("auto", "generalist") if number % 2 else ("generalist", "auto"):
                rates[way].append(len(some) / asking.all(some, [way] * len(some)).seconds)
    return rates


def _figures(url: str, asked: Sequence[Sequence[Question]], options: argparse.Namespace) -> dict[str, Any]:
    measured = measure(url, asked, concurrency=options.concurrency)
    again = in_turn(url, [some[:FOR_SPEED] for some in asked], at_a_time=options.concurrency)
    rates = measure_levels(url, n=min(options.n, FOR_SPEED), rounds=options.rounds)
    return {"concurrency": options.concurrency, **summarise(measured, again, rates)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 when the graph does not come up, 2 when there are not so many questions."""
    parser = argparse.ArgumentParser(prog="python -m experiments.claims", description=__doc__)
    parser.add_argument("--endpoint", help="a running ingress, such as http://127.0.0.1:8000")
    parser.add_argument("--n", type=int, default=400, help="questions in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=CONCURRENCY)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    options = parser.parse_args(arguments)
    try:
        drawn = questions("heldout", n=options.n * options.rounds, seed=HELD_OUT_SEED)
    except QuestionError as error:
        parser.error(f"--n {options.n} in each of --rounds {options.rounds}: {error}")
    asked = [drawn[start : start + options.n] for start in range(0, len(drawn), options.n)]
    if options.endpoint:
        figures = _figures(options.endpoint, asked, options)
    else:
        with serving(ROOT / "serve_config.yaml", port=PORT, log=ROOT / "var" / "claims.log") as (
            url,
            process,
        ):
            if not wait_until_ready(url, lambda: process.poll() is None, print):
                print("the graph did not come up; see var/claims.log", file=sys.stderr)
                return 1
            figures = _figures(url, asked, options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "claims.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (options.out / "claims.md").write_text(as_markdown(figures), encoding="utf-8")
    print(as_markdown(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
