"""The paper's three claims, measured on the served pocket experts with held-out questions.

    python -m experiments.claims [--endpoint URL] [--n 400] [--rounds 5] [--out FOLDER]

Sends the same questions to `auto`, to every expert alone and to a random expert in turn, round by round, so
that a drift of the machine affects all. Every round has its own questions, so that the router's cache of
embeddings has none of them. Writes claims.json and claims.md. Without `--endpoint` it starts the graph of
cluster/local/claims.yaml itself.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from cluster.local.readiness import wait_until_ready
from cluster.local.run import ROOT, serving
from cluster.pocket.questions import Question, QuestionError, questions
from cluster.pocket.train_policy import CLAIMS, MOST_TOKENS
from experiments.claims_report import Result, Round, as_markdown, speedup, summarise

PORT = 8138
EXPERTS = CLAIMS.experts
CONCURRENCY = 1
"""Without queueing, the time of a query is that of its expert and of its routing."""
LEVELS = (1, 2, 4, 8, 16)
"""Concurrency levels at which the speed of `auto` and of the generalist is compared."""
HELD_OUT_SEED = 7
WARM_UP = 32
FOR_SPEED = 100
"""Most questions of a round that measures only speed."""
RESPONSE_WITHIN_S = 120.0
JSON = {"content-type": "application/json"}


class Client:
    """Sends questions to one endpoint, `at_a_time` of them in flight, each lane with its own connection.

    Plain `http.client`: the client shares the machine with the graph and must use little of it.

    Args:
        url: of the endpoint.
        at_a_time: questions in flight.
        routing: preferences of each request.
    """

    def __init__(self, url: str, at_a_time: int, routing: Mapping[str, Any] | None = None) -> None:
        self._routing = {} if routing is None else {"routing": dict(routing)}
        self._host = url.removeprefix("http://")
        self._lanes = ThreadPoolExecutor(at_a_time, initializer=self._connect)
        self._own = threading.local()
        self._connections: list[HTTPConnection] = []

    def _connect(self) -> None:
        self._own.connection = HTTPConnection(self._host, timeout=RESPONSE_WITHIN_S)
        self._connections.append(self._own.connection)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._lanes.shutdown()
        for connection in self._connections:
            connection.close()

    def all(self, questions: Sequence[Question], models: Sequence[str]) -> Round:
        """Send every question to its model.

        Raises:
            RuntimeError: a response was not successful.
        """
        started = time.perf_counter()
        answers = list(self._lanes.map(self._send, questions, models))
        return Round(answers, time.perf_counter() - started)

    def _send(self, question: Question, model: str) -> Result:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question.query}],
            "max_tokens": MOST_TOKENS,
            "temperature": 0,
            **self._routing,
        }
        connection: HTTPConnection = self._own.connection
        connection.request("POST", "/v1/chat/completions", json.dumps(body), JSON)
        response = connection.getresponse()
        data = json.loads(response.read())
        if response.status != 200:
            raise RuntimeError(f"{model} returned {response.status}: {data}")
        return Result(
            question,
            response.headers["x-router-expert"],
            data["choices"][0]["message"]["content"].strip() == question.reference,
            data["usage"]["prompt_tokens"],
            data["usage"]["completion_tokens"],
            response.headers["x-router-reason"],
        )


def measure(url: str, rounds: Sequence[Sequence[Question]], *, concurrency: int) -> dict[str, list[Round]]:
    """Measure every way to serve each round's questions, one after the other."""
    warm_up, n, rng = questions("policy", n=WARM_UP, seed=HELD_OUT_SEED), len(rounds[0]), random.Random(0)
    ways: dict[str, list[str]] = {"auto": ["auto"] * n}
    ways |= {expert: [expert] * n for expert in EXPERTS}
    ways["random"] = [rng.choice(EXPERTS) for _ in range(n)]
    measured: dict[str, list[Round]] = defaultdict(list)
    with Client(url, concurrency) as client:
        for models in ways.values():  # warms every path, not counted
            client.all(warm_up, list(islice(cycle(models), WARM_UP)))
        for number, new in enumerate(rounds, 1):
            for way in rng.sample(list(ways), len(ways)):
                measured[way].append(client.all(new, ways[way]))
                print(f"round {number}/{len(rounds)}: {way}", flush=True)
    return measured


def measure_levels(url: str, *, n: int, rounds: int) -> dict[int, dict[str, list[float]]]:
    """Measure queries per second of `auto` and of the generalist, in turn, at each of `LEVELS`.

    Only speed is measured, and the held-out split is too small: these questions are of the train split.
    """
    source = iter(questions("train", n=n * rounds * len(LEVELS), seed=HELD_OUT_SEED))
    rates: dict[int, dict[str, list[float]]] = {}
    for level in LEVELS:
        rates[level] = in_turn(url, [list(islice(source, n)) for _ in range(rounds)], at_a_time=level)
        print(f"{level} at a time: {speedup(rates[level]):+.1%}", flush=True)
    return rates


def in_turn(url: str, rounds: Sequence[Sequence[Question]], *, at_a_time: int) -> dict[str, list[float]]:
    """Measure queries per second of `auto` and of the generalist for each list, one after the other."""
    rates: dict[str, list[float]] = {"auto": [], "generalist": []}
    with Client(url, at_a_time) as client:
        for number, some in enumerate(rounds):
            for way in ("auto", "generalist") if number % 2 else ("generalist", "auto"):
                rates[way].append(len(some) / client.all(some, [way] * len(some)).seconds)
    return rates


def _figures(url: str, rounds: Sequence[Sequence[Question]], options: argparse.Namespace) -> dict[str, Any]:
    measured = measure(url, rounds, concurrency=options.concurrency)
    again = in_turn(url, [some[:FOR_SPEED] for some in rounds], at_a_time=options.concurrency)
    rates = measure_levels(url, n=min(options.n, FOR_SPEED), rounds=options.rounds)
    return {"concurrency": options.concurrency, **summarise(measured, again, rates)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 if the graph does not start, 2 if there are not enough questions."""
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
    rounds = [drawn[start : start + options.n] for start in range(0, len(drawn), options.n)]
    if options.endpoint:
        figures = _figures(options.endpoint, rounds, options)
    else:
        with serving(CLAIMS.config, port=PORT, log=ROOT / "var" / "claims.log") as (
            url,
            process,
        ):
            if not wait_until_ready(url, lambda: process.poll() is None, print):
                print("the graph did not start; see var/claims.log", file=sys.stderr)
                return 1
            figures = _figures(url, rounds, options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "claims.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (options.out / "claims.md").write_text(as_markdown(figures), encoding="utf-8")
    print(as_markdown(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
