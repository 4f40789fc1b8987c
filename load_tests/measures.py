"""Figures of outcomes: percentiles, rates, goodput, errors by kind, responses by expert.

Pure. Times are in milliseconds, the unit of the reports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from statistics import fmean
from typing import Any

from load_tests.client import Outcome
from load_tests.load import Load

PERCENTILES = (50, 90, 95, 99)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the value below which `percent` of `ordered` are, interpolated between neighbours."""
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def spread(seconds: Iterable[float]) -> dict[str, float] | None:
    """Return mean, percentiles and maximum in milliseconds; `None` without values."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    points = {"mean": fmean(ordered), "max": ordered[-1]}
    points |= {f"p{percent}": percentile(ordered, percent) for percent in PERCENTILES}
    return {name: round(value * 1000, 3) for name, value in points.items()}


def summarise(load: Load, goodput: dict[str, float] | None = None) -> dict[str, Any]:
    """Return the figures of one load.

    Args:
        load: the outcomes.
        goodput: limits of a good request in milliseconds, with keys among `ttft_ms`, `tpot_ms`, `e2e_ms`.
    """
    done = [outcome for outcome in load.outcomes if outcome.ok]
    seconds = max(load.seconds, 1e-9)
    summary: dict[str, Any] = {
        "requests": len(load.outcomes),
        "answered": len(done),
        "success_rate": round(len(done) / len(load.outcomes), 6) if load.outcomes else None,
        "seconds": round(load.seconds, 3),
        "requests_per_s": round(len(done) / seconds, 2),
        "output_tokens_per_s": round(sum(outcome.tokens for outcome in done) / seconds, 1),
        "chunks_per_s": round(sum(outcome.chunks for outcome in done) / seconds, 1),
        "ttft_ms": spread(outcome.ttft_s for outcome in done if outcome.streamed),
        "tpot_ms": spread(time for outcome in done if (time := outcome.tpot_s) is not None),
        "gap_ms": spread(chain.from_iterable(outcome.gaps_s for outcome in done)),
        "e2e_ms": spread(outcome.e2e_s for outcome in done),
        "errors": dict(Counter(outcome.error for outcome in load.outcomes if outcome.error).most_common()),
        "experts": dict(sorted(Counter(outcome.expert for outcome in done if outcome.expert).items())),
        "kinds": dict(sorted(Counter(outcome.kind for outcome in load.outcomes).items())),
        "client": {
            "cpu_fraction_of_a_core": round(load.client_cpu_s / seconds, 3),
            "late_ms": spread(outcome.late_s for outcome in load.outcomes),
        },
    }
    if goodput is not None:
        good = sum(_kept(outcome, goodput) for outcome in done)
        summary["goodput"] = {
            "limits": goodput,
            "requests_per_s": round(good / seconds, 2),
            "fraction": round(good / len(load.outcomes), 6) if load.outcomes else None,
        }
    return summary


def _kept(outcome: Outcome, limits: dict[str, float]) -> bool:
    """Whether a request met every limit that applies to it."""
    times = {"e2e_ms": outcome.e2e_s, "tpot_ms": outcome.tpot_s}
    times["ttft_ms"] = outcome.ttft_s if outcome.streamed else None
    return all(time is None or time * 1000 <= limits[name] for name, time in times.items() if name in limits)
