"""Load test of an OpenAI-compatible endpoint: `python -m load_tests --help`.

Closed loop by default (`--concurrency`); `--rate`, `--bursts` and `--trace` make an open loop.
Exit code 1 if an objective of `--slo` was missed, 2 on bad input.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop

from load_tests import arrivals
from load_tests.client import Target
from load_tests.load import Load, closed_loop, open_loop
from load_tests.measures import summarise
from load_tests.processes import NotStarted, responds, running
from load_tests.report import markdown, write_report
from load_tests.slo import Slo, SloError, load_slo
from load_tests.workloads import WORKLOADS, Shape, requests

WARM_UP_SEED_OFFSET = 1_000_003
MOST_SECONDS = 3600.0
MOST_REQUESTS = 1_000_000


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m load_tests", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="without /v1")
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--workload", choices=WORKLOADS, default="mixed")
    parser.add_argument("--concurrency", type=int, default=8, help="clients of the closed loop")
    parser.add_argument("--rate", type=float, help="open loop: requests per second")
    parser.add_argument("--burstiness", type=float, default=1.0, help="1: Poisson; below 1: clustered")
    parser.add_argument("--bursts", type=int, metavar="SIZE", help="with --rate: bursts of this size")
    parser.add_argument("--trace", type=Path, help="open loop: arrival times from a CSV or JSONL file")
    parser.add_argument("--speed", type=float, default=1.0, help="of the trace: 2 is twice as fast")
    parser.add_argument("--requests", type=int, default=200, help="at most")
    parser.add_argument("--seconds", type=float, default=60.0, help="no request is sent after this")
    parser.add_argument("--timeout", type=float, default=60.0, help="of one request, in seconds")
    parser.add_argument("--warm-up", type=int, default=8, help="requests before, not counted")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--long-words", type=int, default=190, help="length of long prompts")
    parser.add_argument("--no-stream", dest="stream", action="store_false")
    parser.add_argument("--ignore-eos", action="store_true", help="engines always generate max_tokens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--key-env", help="environment variable that holds the API key")
    parser.add_argument("--slo", type=Path, help="objectives; exit code 1 if one is missed")
    parser.add_argument("--profile", default="small", help="which objectives of the file")
    parser.add_argument("--out", type=Path, default=Path("var/load"), help="folder of the report")
    parser.add_argument("--start", metavar="COMMAND", help="start this first, wait for /ready, end it after")
    parser.add_argument("--allow-remote", action="store_true", help="put load on another host than this one")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one load; 0 if all objectives were met, 1 if not, 2 on bad input."""
    options = parser().parse_args(arguments)
    try:
        target = _target(options)
        slo = None if options.slo is None else load_slo(options.slo, options.profile)
        plan = _plan(options)
    except (ValueError, OSError, SloError) as error:
        print(f"load_tests: {error}", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        if options.start:
            log = options.out / "served.log"
            ready = responds(f"{options.url.rstrip('/')}/ready")
            try:
                stack.enter_context(running(shlex.split(options.start), log=log, ready=ready, within_s=600))
            except NotStarted as error:
                print(f"load_tests: {error}", file=sys.stderr)
                return 2
        load = uvloop.run(_run(options, target, plan))
    return _report(options, slo, load)


async def _run(options: argparse.Namespace, target: Target, plan: list[float] | None) -> Load:
    shape = _shape(options)
    if options.warm_up:
        before = requests(options.workload, shape, options.seed + WARM_UP_SEED_OFFSET)
        width = min(options.warm_up, options.concurrency)
        await closed_loop(
            target, before, concurrency=width, count=options.warm_up, seconds=60, timeout_s=options.timeout
        )
    source = requests(options.workload, shape, options.seed)
    if plan is not None:
        return await open_loop(target, source, arrivals=plan, timeout_s=options.timeout)
    return await closed_loop(
        target,
        source,
        concurrency=options.concurrency,
        count=options.requests,
        seconds=options.seconds,
        timeout_s=options.timeout,
    )


def _report(options: argparse.Namespace, slo: Slo | None, load: Load) -> int:
    figures = summarise(load, None if slo is None else slo.goodput)
    missed = [] if slo is None else slo.missed(figures)
    if not load.outcomes:
        missed.append("no request was sent")
    report: dict[str, Any] = {
        "load": _description(options),
        "slo": None if slo is None else options.profile,
        "figures": figures,
        "missed": missed,
    }
    write_report(options.out, report, load)
    print(markdown(report))
    print(f"written: {options.out}/report.json, report.md, plot.png")
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


def _target(options: argparse.Namespace) -> Target:
    headers: tuple[tuple[str, str], ...] = ()
    if options.key_env:
        key = os.environ.get(options.key_env)
        if not key:
            raise ValueError(f"the environment variable {options.key_env} is empty: put the API key there")
        headers = (("authorization", f"Bearer {key}"),)
    target = Target.of(options.url, headers)
    if not target.is_loopback and not options.allow_remote:
        raise ValueError(f"{target.host} is not this machine: --allow-remote if you may put load on it")
    return target


def _plan(options: argparse.Namespace) -> list[float] | None:
    """Return the arrival times of an open loop; `None` for a closed one.

    Raises:
        ValueError: a number is out of range, or the options conflict.
    """
    for name in ("concurrency", "requests", "seconds", "timeout", "max_tokens", "burstiness", "speed"):
        if getattr(options, name) <= 0:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected more than 0")
    if options.requests > MOST_REQUESTS or options.seconds > MOST_SECONDS:
        raise ValueError(f"a load is bounded by {MOST_REQUESTS} requests and {MOST_SECONDS:.0f} s")
    if options.rate is not None and options.rate <= 0:
        raise ValueError(f"--rate is {options.rate}, expected more than 0")
    bounds = {"count": options.requests, "seconds": options.seconds}
    if options.trace is not None:
        if options.rate is not None or options.bursts is not None:
            raise ValueError("--trace has its own times: remove --rate and --bursts")
        return arrivals.bounded(arrivals.trace(options.trace, speed=options.speed), **bounds)
    if options.bursts is not None:
        if options.rate is None or options.bursts < 1:
            raise ValueError("--bursts needs a size of at least 1, and --rate")
        return arrivals.bounded(
            arrivals.bursts(options.rate, size=options.bursts, seed=options.seed), **bounds
        )
    if options.rate is not None:
        times = arrivals.gamma(options.rate, burstiness=options.burstiness, seed=options.seed)
        return arrivals.bounded(times, **bounds)
    return None


def _shape(options: argparse.Namespace) -> Shape:
    extra = (("ignore_eos", True), ("min_tokens", options.max_tokens)) if options.ignore_eos else ()
    return Shape(
        model=options.model,
        max_tokens=options.max_tokens,
        stream=options.stream,
        path=options.path,
        long_words=options.long_words,
        extra=extra,
    )


def _description(options: argparse.Namespace) -> dict[str, Any]:
    if options.trace is not None:
        loop = f"open, trace {options.trace.name} at speed {options.speed:g}"
    elif options.bursts is not None:
        loop = f"open, bursts of {options.bursts}, {options.rate:g}/s"
    elif options.rate is not None:
        loop = f"open, {options.rate:g}/s, burstiness {options.burstiness:g}"
    else:
        loop = f"closed, {options.concurrency} clients"
    return {
        "loop": loop,
        "workload": options.workload,
        "model": options.model,
        "max_tokens": options.max_tokens,
        "stream": options.stream,
        "seed": options.seed,
        "processors": os.cpu_count(),
    }


if __name__ == "__main__":
    sys.exit(main())
