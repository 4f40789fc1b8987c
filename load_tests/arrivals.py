"""Arrival times of an open loop: seconds from the start, ascending.

Pure. A closed loop has no arrivals: there the next request follows the last response.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

COLUMNS = ("arrived_at_s", "timestamp", "TIMESTAMP", "time")
"""Columns with the time of a trace; the last two are those of published traces of LLM services."""


def gamma(rate: float, *, burstiness: float, seed: int) -> Iterator[float]:
    """Yield arrivals at `rate` per second; burstiness 1 is Poisson, below 1 is clustered, above even.

    Burstiness is the shape of a gamma distribution, as in vLLM's own benchmark.
    """
    rng = random.Random(f"gamma/{seed}")
    at = 0.0
    while True:
        yield at
        at += rng.gammavariate(burstiness, 1 / (rate * burstiness))


def bursts(rate: float, *, size: int, seed: int) -> Iterator[float]:
    """Yield bursts of `size` simultaneous requests at random intervals, `rate` per second on average."""
    for at in gamma(rate / size, burstiness=1.0, seed=seed):
        for _ in range(size):
            yield at


def trace(file: Path, *, speed: float = 1.0) -> list[float]:
    """Read arrival times from a file, shifted to start at 0.

    A CSV with one of the columns `arrived_at_s`, `timestamp`, `TIMESTAMP`, `time`, or JSON lines
    with one of these fields; seconds, or ISO dates.

    Args:
        file: the trace.
        speed: 2 replays twice as fast.

    Raises:
        ValueError: the file has no such column, no row or an invalid time.
    """
    text = file.read_text(encoding="utf-8")
    if file.suffix in {".jsonl", ".ndjson"}:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        rows = list(csv.DictReader(text.splitlines()))
    if not rows:
        raise ValueError(f"{file} has no arrivals")
    column = next((name for name in COLUMNS if name in rows[0]), None)
    if column is None:
        raise ValueError(f"{file} has the columns {', '.join(rows[0])}, expected one of {', '.join(COLUMNS)}")
    times = sorted(_seconds(row[column], file) for row in rows)
    return [(at - times[0]) / speed for at in times]


def bounded(times: Iterator[float] | list[float], *, count: int, seconds: float) -> list[float]:
    """Return at most `count` arrivals, none after `seconds`."""
    kept: list[float] = []
    for at in islice(times, count):
        if at > seconds:
            break
        kept.append(at)
    return kept


def _seconds(value: object, file: Path) -> float:
    try:
        return float(str(value))
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(str(value)[:26]).timestamp()
    except ValueError:
        raise ValueError(f"{file}: {value!r} is neither seconds nor a date") from None
