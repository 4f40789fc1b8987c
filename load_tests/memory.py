"""Does memory stay flat? `python -m load_tests.memory --part :Ingress --part :Router --requests 100000`.

Puts a closed loop on a running endpoint of this machine in slices, and reads the resident memory of
the processes (a word of their titles) after each. Exit code 1 if a process grew by more than
`--most-growth` MB after the first slice, if it ended above `--most` MB, or if a request failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import uvloop

from load_tests.client import Target
from load_tests.load import closed_loop
from load_tests.processes import find, resident_mb
from load_tests.report import table
from load_tests.workloads import WORKLOADS, Shape, requests

MOST_SECONDS = 3600.0


def main(arguments: list[str] | None = None) -> int:
    """Put load on the endpoint and print the memory; 1 if a limit was exceeded."""
    parser = argparse.ArgumentParser(prog="python -m load_tests.memory", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--workload", choices=WORKLOADS, action="append", help="in turn")
    parser.add_argument("--part", action="append", required=True, help="word of a process' title")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=4)
    parser.add_argument("--most", type=float, action="append", default=[], help="MB, one for each --part")
    parser.add_argument("--most-growth", type=float, default=20.0, help="MB after the first slice")
    parser.add_argument("--out", type=Path, default=Path("var/memory"))
    options = parser.parse_args(arguments)
    parts = {part: find("ray::ServeReplica", part) for part in options.part}
    if missing := [part for part, pids in parts.items() if not pids]:
        print(f"memory: no process has the title {missing[0]}", file=sys.stderr)
        return 2
    rows = [_row(0, 0.0, 0, parts)]
    for number in range(options.slices):
        rows.append(_slice(options, number, rows[-1], parts))
        print(rows[-1], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "memory.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(tuple(rows[0]), [tuple(row.values()) for row in rows])))
    missed = missed_by(rows, options.part, options.most, options.most_growth)
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return int(bool(missed))


def missed_by(
    rows: list[dict[str, Any]], parts: list[str], most: list[float], most_growth: float
) -> list[str]:
    """Return one line for each limit that was exceeded."""
    lines = [f"{row['failed']} requests failed" for row in rows if row["failed"]]
    for part, limit in zip(parts, most, strict=False):
        if rows[-1][part] > limit:
            lines.append(f"{part} ended at {rows[-1][part]:.0f} MB, the limit is {limit:g}")
    for part in parts:
        grown = rows[-1][part] - rows[1][part]
        if grown > most_growth:
            lines.append(f"{part} grew by {grown:.0f} MB after the first slice, the limit is {most_growth:g}")
    return lines


def _slice(
    options: argparse.Namespace, number: int, before: dict[str, Any], parts: dict[str, list[int]]
) -> dict[str, Any]:
    workloads = options.workload or ["short", "thirty"]
    source = requests(
        workloads[number % len(workloads)],
        Shape(model=options.model, max_tokens=options.max_tokens, stream=False),
        seed=number,
    )
    load = uvloop.run(
        closed_loop(
            Target.of(options.url),
            source,
            concurrency=options.concurrency,
            count=options.requests // options.slices,
            seconds=MOST_SECONDS,
        )
    )
    failed = sum(not outcome.ok for outcome in load.outcomes)
    return _row(before["requests"] + len(load.outcomes), len(load.outcomes) / load.seconds, failed, parts)


def _row(requests: int, rate: float, failed: int, parts: dict[str, list[int]]) -> dict[str, Any]:
    sizes = {part: round(max(resident_mb(process) for process in of), 1) for part, of in parts.items()}
    return {"requests": requests, "requests/s": round(rate, 1), "failed": failed, **sizes}


if __name__ == "__main__":
    sys.exit(main())
