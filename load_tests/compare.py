"""Compare with other systems side by side: `python -m load_tests.compare proxies|engines`.

Starts every competitor with the same back end, puts the same load on each in turn (A B A B …), and prints
ratios to the first one, paired within each round, so that a disturbance of the machine affects both.
Writes compare.json, compare.md and the logs of all servers.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from load_tests import peers
from load_tests.client import Target
from load_tests.load import closed_loop
from load_tests.measures import summarise
from load_tests.peers import Field, Server, Subject
from load_tests.processes import NotStarted, responds, running
from load_tests.report import table
from load_tests.workloads import Shape, requests

FIGURES = ("requests_per_s", "output_tokens_per_s", "ttft_ms.p50", "ttft_ms.p99", "e2e_ms.p50", "e2e_ms.p99")
UP_WITHIN_S = 300.0
SETTLE_S = {"proxies": 0.2, "engines": 1.2}
"""Pause before each load: after its last step, a worker of vLLM spins for a second on a core."""
WARM_UP = 24
STOPPED = 128 + signal.SIGTERM
"""Exit code of a program that SIGTERM ended."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One load, which every subject gets in every round."""

    name: str
    concurrency: int
    max_tokens: int
    stream: bool
    workload: str = "thirty"


KINDS: dict[str, tuple[Kind, ...]] = {
    "proxies": (
        Kind("not streamed, 16 clients", 16, 16, stream=False),
        Kind("64 chunks, 16 clients", 16, 64, stream=True),
    ),
    "engines": tuple(Kind(f"32 tokens, {c} clients", c, 32, stream=True) for c in (1, 8, 32)),
}
Rounds = dict[str, dict[str, list[dict[str, Any]]]]
"""Load → subject → the summary of each round."""


def main(arguments: list[str] | None = None) -> int:
    """Start, measure, print; 2 if a server did not start, 1 if requests failed."""
    parser = argparse.ArgumentParser(prog="python -m load_tests.compare", description=__doc__)
    parser.add_argument("suite", choices=KINDS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load in each round")
    parser.add_argument("--port", type=int, default=18100, help="the first of several")
    parser.add_argument(
        "--peers", type=Path, default=Path("var/peers"), help="folder of the peers' environments"
    )
    parser.add_argument(
        "--routellm", action="store_true", help="add RouteLLM, whose package installs CUDA libraries"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only subjects with these prefixes")
    parser.add_argument("--out", type=Path, default=Path("var/compare"))
    options = parser.parse_args(arguments)
    if options.rounds < 1 or not 0 < options.seconds <= 60:
        print("compare: --rounds is at least 1, --seconds between 0 and 60", file=sys.stderr)
        return 2
    if options.suite == "proxies":
        install(options.peers, routellm=options.routellm)
        field = peers.proxies(options.port, options.out, options.peers.resolve(), routellm=options.routellm)
    else:
        field = peers.engines(options.port, options.out)
    field = selected(field, options.only)
    if len(field.subjects) < 2:
        print("compare: --only leaves fewer than two subjects", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        try:
            for server in field.servers:
                stack.enter_context(_started(server, options.out))
                print(f"started: {server.name}", flush=True)
        except NotStarted as error:
            print(f"compare: {error}", file=sys.stderr)
            return 2
        rounds: Rounds = {}
        # A program that is stopped leaves no server, and what it has measured.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
        try:
            rounds = measure(
                field.subjects,
                KINDS[options.suite],
                options.rounds,
                options.seconds,
                settle_s=SETTLE_S[options.suite],
                into=rounds,
            )
        finally:
            code = _write(options, rounds)
    return code


def install(folder: Path, *, routellm: bool) -> None:
    """Install each peer's package into its own environment, once."""
    packages = {"litellm": peers.LITELLM} | ({"routellm": peers.ROUTELLM} if routellm else {})
    for name, package in packages.items():
        home = folder / name
        if not (home / "bin" / name).exists() and not (home / "installed").exists():
            venv.create(home, with_pip=True)
            subprocess.run([str(home / "bin" / "pip"), "install", "-q", package], check=True)
            (home / "installed").touch()


def selected(field: Field, names: Sequence[str] | None) -> Field:
    """Keep the subjects whose name starts with one of `names`, and the servers that they need."""
    if not names:
        return field
    subjects = tuple(s for s in field.subjects if s.name.startswith(tuple(names)))
    needed = {"mock", *(s.name.split(",")[0] for s in subjects)}
    proxied = any(server.name == "mock" for server in field.servers)
    servers = tuple(s for s in field.servers if not proxied or s.name in needed)
    return Field(servers, subjects)


def measure(
    subjects: Sequence[Subject],
    kinds: Sequence[Kind],
    rounds: int,
    seconds: float,
    *,
    settle_s: float = 0.0,
    into: Rounds | None = None,
) -> Rounds:
    """Put every load on every subject in turn, `rounds` times, in alternating order.

    `into` is filled as it goes, for a caller that may be stopped.
    """
    summaries = {} if into is None else into
    summaries |= {kind.name: {subject.name: [] for subject in subjects} for kind in kinds}
    for subject in subjects:
        _load(subject, kinds[0], seed="warm-up", seconds=10.0, count=WARM_UP)
    for number in range(rounds):
        order = subjects if number % 2 == 0 else subjects[::-1]
        for kind in kinds:
            for subject in order:
                # Queries that no subject has seen: a cache must not help the later ones.
                time.sleep(settle_s)
                seed = f"{number}/{kind.name}/{subject.name}"
                summary = _load(subject, kind, seed=seed, seconds=seconds, count=1_000_000)
                summaries[kind.name][subject.name].append(summary)
                rate, failed = summary["requests_per_s"], sum(summary["errors"].values())
                print(
                    f"[{number + 1}/{rounds}] {kind.name}: {subject.name}: {rate}/s, {failed} failed",
                    flush=True,
                )
    return summaries


def figure(summary: dict[str, Any], name: str) -> float | None:
    """Return a figure of a summary by its dotted name; `None` if it was not measured."""
    value: Any = summary
    for part in name.split("."):
        value = None if value is None else value.get(part)
    return None if value is None else float(value)


def paired(rounds: dict[str, list[dict[str, Any]]], subject: str, base: str, name: str) -> list[float]:
    """Return the ratio of `subject` to `base` in each round that measured both."""
    ratios = []
    for ours, theirs in zip(rounds[subject], rounds[base], strict=False):  # the last round may be cut off
        top, bottom = figure(ours, name), figure(theirs, name)
        if top is not None and bottom:
            ratios.append(top / bottom)
    return ratios


def added(rounds: dict[str, list[dict[str, Any]]], subject: str, base: str, name: str) -> list[float]:
    """Return the difference of `subject` to `base` in each round that measured both."""
    pairs = [(figure(a, name), figure(b, name)) for a, b in zip(rounds[subject], rounds[base], strict=False)]
    return [a - b for a, b in pairs if a is not None and b is not None]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Format as `median (minimum to maximum)`, or a dash without values."""
    if not values:
        return "–"
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def page(rounds: Rounds) -> str:
    """Return the comparison as Markdown: median, minimum and maximum of the rounds."""
    lines: list[str] = []
    for kind, by_subject in rounds.items():
        base = next(iter(by_subject))
        count = len(by_subject[base])
        lines += [f"### {kind}, {count} rounds", ""]
        names = [n for n in FIGURES if any(figure(s, n) is not None for s in by_subject[base])]
        rows: list[tuple[Any, ...]] = []
        for subject, summaries in by_subject.items():
            values = [[v for s in summaries if (v := figure(s, name)) is not None] for name in names]
            failed = sum(sum(s["errors"].values()) for s in summaries)
            rows.append((subject, *(spread(value, ".1f") for value in values), failed))
        lines += table(("", *(name.replace(".", " ") for name in names), "failed"), rows)
        lines += ["", f"Ratios to {base}, paired within each round; the last column is a difference:", ""]
        ratios: list[tuple[Any, ...]] = []
        for subject in list(by_subject)[1:]:
            cells = [spread(paired(by_subject, subject, base, name)) for name in names]
            ratios.append((subject, *cells, spread(added(by_subject, subject, base, "ttft_ms.p50"), "+.1f")))
        lines += [*table(("", *(n.replace(".", " ") for n in names), "added TTFT p50, ms"), ratios), ""]
    return "\n".join(lines)


def _load(subject: Subject, kind: Kind, *, seed: str, seconds: float, count: int) -> dict[str, Any]:
    shape = Shape(model=subject.model, max_tokens=kind.max_tokens, stream=kind.stream, extra=subject.extra)
    source = requests(kind.workload, shape, seed)
    load = uvloop.run(
        closed_loop(
            Target.of(subject.url),
            source,
            concurrency=kind.concurrency,
            count=count,
            seconds=seconds,
            timeout_s=60,
        )
    )
    return summarise(load)


def _started(server: Server, out: Path) -> Any:
    return running(
        server.command,
        log=out / f"{server.name}.log",
        ready=responds(server.ready),
        env=server.env,
        within_s=UP_WITHIN_S,
    )


def _write(options: argparse.Namespace, rounds: Rounds) -> int:
    processors = os.cpu_count()
    busy = os.getloadavg()[0]
    machine = f"{processors} processors, {options.seconds:g} s per load, load average {busy:.1f} at the end"
    text = f"## {options.suite}\n\n{machine}\n\n{page(rounds)}"
    options.out.mkdir(parents=True, exist_ok=True)
    data = {"suite": options.suite, "processors": processors, "seconds": options.seconds, "rounds": rounds}
    (options.out / "compare.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (options.out / "compare.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    failed = [
        s
        for by in rounds.values()
        for all_of in by.values()
        for s in all_of
        if s["errors"] or not s["answered"]
    ]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
