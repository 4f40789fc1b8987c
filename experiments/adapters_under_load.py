"""Adapters that come, change and go under load on one real engine: nothing lost, wrong or stale.

    python -m experiments.adapters_under_load [--requests 2000] [--lanes 6] [--expert words]

Starts the graph with one engine and four adapters, and records the answers of each and of the base, one at a
time at temperature 0. All answers under load are compared with these, while one adapter is loaded and
unloaded several times and the weights of another one are replaced under its name. All prompts begin with the
same text, which the engine's prefix cache keeps for each adapter. Writes figures.json and prints it.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from cluster.local.run import serving, with_port
from cluster.pocket.chat_model import FOLDER as CHAT
from cluster.pocket.expert_folder import EXPERTS
from cluster.pocket.questions import questions
from experiments.deploys import counter, serve_deploy
from experiments.variants import answer, await_experts, engine_processes, graph, make, write

PORT = 8243
TOKENS = 4
CANDIDATES, LEAST_QUERIES = 24, 6
STRENGTH = 3.0
"""Strength of the random adapters: each answers differently from the base and from the others."""
PREFIX = (
    "You help people who work with words. Read the text with care, think of every letter in it, and give an "
    "answer that is short and correct. Use plain words, add no comment, and do not repeat what was written "
    "before. If there are several correct answers, give the first of them, and nothing after it. "
)
ENGINE = {"max_loras": 2, "block_size": 32}
"""Fewer slots than adapters are loaded in all, and blocks of which the prefix fills several."""
WITHIN_S = 120.0
ROUNDS = 2
FIRST, SECOND, COMING, AFTER = ADAPTERS = ("first", "second", "coming", "after")
"""Two adapters that are served throughout, the one that comes and goes, and the first one's later weights."""
KINDS = ("lost", "wrong", "stale")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 1 if a request was lost, an answer is wrong or stale, or the engine restarted."""
    parser = argparse.ArgumentParser(prog="python -m experiments.adapters_under_load", description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="at least so many")
    parser.add_argument("--lanes", type=int, default=6, help="requests in flight")
    parser.add_argument("--expert", choices=("words", "chat"), default="words", help="the engine's model")
    parser.add_argument("--out", type=Path, default=Path("var/adapters-under-load"))
    options = parser.parse_args(arguments)
    out: Path = options.out.resolve() / options.expert
    out.mkdir(parents=True, exist_ok=True)
    model = CHAT if options.expert == "chat" else EXPERTS / options.expert
    adapters = make(out / "adapters", model, ADAPTERS, strength=STRENGTH)
    trial = Trial(options.expert, adapters, out)
    with serving(trial.write(adapters), port=PORT, log=out / "serve.log") as (url, process):
        await_experts(url, process)
        figures = under_load(url, trial, options.requests, options.lanes)
        text = json.dumps(figures, indent=2)
        (out / "figures.json").write_text(text + "\n", encoding="utf-8")
        print(text, flush=True)
    return int(any(figures[kind] for kind in (*KINDS, "without_result", "restarted")))


@dataclass(frozen=True, slots=True)
class Trial:
    """The graph of one trial, with other adapters at other times."""

    base: str
    adapters: Mapping[str, Path]
    out: Path

    def write(self, adapters: Mapping[str, Path]) -> Path:
        """Write the configuration with these adapters."""
        data = graph(adapters, self.base)
        data["applications"][-1]["args"]["engine"] |= ENGINE
        return write(data, self.out)

    def deploy(self, adapters: Mapping[str, Path]) -> None:
        """`serve deploy` the graph with these adapters."""
        config, _ = with_port(self.write(adapters), PORT, self.out)
        serve_deploy(config)
        print(f"adapters: {', '.join(adapters)}", flush=True)


def own_answers(url: str, base: str) -> dict[str, dict[str, str]]:
    """Query → the answers of the base and of each adapter, one at a time, where all of them differ."""
    own: dict[str, dict[str, str]] = {}
    drawn = questions("heldout", n=CANDIDATES, seed=0, tasks=("words",))
    with httpx.Client(base_url=url, timeout=60) as client:
        for query in (PREFIX + question.query for question in drawn):
            found = {name: answer(client, name, query, TOKENS) for name in (base, *ADAPTERS)}
            if len(set(found.values())) == len(found):
                own[query] = found
    if len(own) < LEAST_QUERIES:
        sys.exit(f"only {len(own)} of {CANDIDATES} queries distinguish the base and all adapters")
    return own


def under_load(url: str, trial: Trial, least: int, lanes: int) -> dict[str, Any]:
    """Load, unload and replace adapters while requests run."""
    base, adapters = trial.base, trial.adapters
    own = own_answers(url, base)
    print(f"{len(own)} of {CANDIDATES} queries distinguish the base and all adapters", flush=True)
    served = {name: adapters[name] for name in (FIRST, SECOND)}
    trial.deploy(served)
    load = Load(url, own, [FIRST, SECOND, base], {name: [name] for name in (base, FIRST, SECOND, COMING)})
    load.wait(lambda: load.status(COMING) == load.status(AFTER) == 404, "the end of two adapters")
    before, began = engine_processes(base), time.monotonic()
    cached = counter(url, "vllm:prefix_cache_hits_total")
    threads = [threading.Thread(target=load.lane, daemon=True) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    part = least // (2 * ROUNDS + 2)
    for _ in range(ROUNDS):
        load.more(part)
        trial.deploy({**served, COMING: adapters[COMING]})
        load.wait(lambda: load.status(COMING) == 200, "an answer of the adapter that comes")
        load.models.append(COMING)
        load.more(part)
        load.models.remove(COMING)
        load.more(2 * lanes)
        trial.deploy(served)
    load.more(part)
    load.weights[FIRST].append(AFTER)
    trial.deploy({**served, FIRST: adapters[AFTER]})
    load.wait(lambda: FIRST in load.newest_at, "an answer of the new weights")
    load.more(max(part, least - load.sent))
    load.ended = True
    for thread in threads:
        thread.join(WITHIN_S)
    (trial.out / "rows.json").write_text(json.dumps(load.rows), encoding="utf-8")
    counts = {kind: sum(n for what, n in load.problems.items() if what.startswith(kind)) for kind in KINDS}
    return {
        "requests": load.sent,
        "seconds": round(time.monotonic() - began, 1),
        "answered": dict(load.answered),
        "by_new_weights": load.by_new_weights,
        "prefix_tokens_from_cache": round(counter(url, "vllm:prefix_cache_hits_total") - cached),
        **counts,
        "transport_errors": load.transport_errors,
        "without_result": load.sent - sum(load.answered.values()) - counts["lost"],
        "restarted": engine_processes(base) != before,
        "problems": dict(load.problems.most_common(10)),
    }


@dataclass(slots=True)
class Load:
    """Requests to the models of a list that may change, their answers compared with each one's own."""

    url: str
    own: Mapping[str, Mapping[str, str]]
    """Query → the answer of each model's weights."""
    models: list[str]
    weights: dict[str, list[str]]
    """Model → the weights whose answers are right for it; the last ones are its newest."""
    sent: int = 0
    ended: bool = False
    answered: Counter[str] = field(default_factory=Counter)
    by_new_weights: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    transport_errors: int = 0
    newest_at: dict[str, float] = field(default_factory=dict)
    """Model → when an answer of its replaced weights came first."""
    rows: list[tuple[float, float, str, int, str]] = field(default_factory=list)
    """Began, ended, model, number and the weights that answered."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def lane(self) -> None:
        """Send requests, one after the other, until the load ends."""
        queries = tuple(self.own)
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self.ended:
                with self.lock:
                    number, self.sent = self.sent, self.sent + 1
                    models = tuple(self.models)
                model, query = models[number % len(models)], queries[number // len(models) % len(queries)]
                began = time.monotonic()
                try:
                    text = answer(client, model, query, TOKENS)
                except httpx.HTTPError as error:
                    with self.lock:
                        self.transport_errors += isinstance(error, httpx.TransportError)
                        self.problems[f"lost: {model}: {str(error)[:200]}"] += 1
                    continue
                with self.lock:
                    self.judge(model, query, text, began)
                    self.rows.append((began, time.monotonic(), model, number, self.by(query, text)))

    def by(self, query: str, text: str) -> str:
        """The weights whose own answer it is."""
        return next((name for name, own in self.own[query].items() if own == text), "none")

    def judge(self, model: str, query: str, text: str, began: float) -> None:
        """Count an answer by the weights that it is from."""
        self.answered[model] += 1
        by, allowed = self.by(query, text), self.weights[model]
        if by not in allowed:
            self.problems[f"wrong: {model}: as {by}"] += 1
        elif len(allowed) > 1 and by == allowed[-1]:
            self.by_new_weights += 1
            self.newest_at.setdefault(model, time.monotonic())
        elif began > self.newest_at.get(model, began):
            self.problems[f"stale: {model}"] += 1

    def status(self, model: str) -> int:
        """The status of one more request, outside the load."""
        body = {"model": model, "messages": [{"role": "user", "content": PREFIX}], "max_tokens": 1}
        try:
            return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60).status_code
        except httpx.TransportError:
            return 0

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Wait until something is so, for a bounded time.

        Raises:
            TimeoutError: it was not.
        """
        ends = time.monotonic() + WITHIN_S
        while not done():
            if time.monotonic() > ends:
                raise TimeoutError(f"{what}: not within {WITHIN_S:g} s")
            time.sleep(0.1)

    def more(self, count: int) -> None:
        """Wait until so many more requests were sent."""
        until = self.sent + count
        self.wait(lambda: self.sent >= until, f"{count} more requests")


if __name__ == "__main__":
    sys.exit(main())
