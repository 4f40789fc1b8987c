"""Figures of routing: areas, gaps, intervals, calibration. Arrays in, numbers out.

APGR and CPT are RouteLLM's (arXiv 2406.18665), the expected calibration error is Naeini et al.'s (AAAI
2015); AIQ is in `router.methods.hull`, because a method needs it too.
"""

from collections.abc import Callable

import numpy as np

from router.core import FloatArray, IntArray

RESAMPLES = 2000
BINS = 10


def interval(statistic: Callable[[FloatArray], FloatArray], n: int, *, seed: int = 0) -> list[float]:
    """95 % bootstrap interval over queries.

    Args:
        statistic: weights [resamples, n] that sum to 1 in each row → values [resamples].
        n: number of queries.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(0, RESAMPLES, 200):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=200) / n
        values.append(statistic(weights))
    low, high = np.quantile(np.concatenate(values), [0.025, 0.975])
    return [float(low), float(high)]


def calibration_error(scores: FloatArray, quality: FloatArray) -> float:
    """Expected calibration error over ten bins of equal width."""
    bins: IntArray = np.minimum((scores * BINS).astype(int), BINS - 1)
    total = 0.0
    for number in np.unique(bins):
        inside = bins == number
        total += inside.mean() * abs(scores[inside].mean() - quality[inside].mean())
    return float(total)


def reliability(scores: FloatArray, quality: FloatArray) -> list[tuple[float, float, int]]:
    """(mean score, mean quality, queries) of each bin that holds any."""
    bins: IntArray = np.minimum((scores * BINS).astype(int), BINS - 1)
    return [
        (float(scores[bins == b].mean()), float(quality[bins == b].mean()), int((bins == b).sum()))
        for b in np.unique(bins)
    ]


def gap_recovered(lead: FloatArray, weak: FloatArray, strong: FloatArray) -> tuple[FloatArray, FloatArray]:
    """RouteLLM's curve: (share of strong calls, share of the performance gap recovered), both [n + 1].

    Queries with equal leads all count at their mean: a router that does not distinguish them must not
    profit or suffer from the order of the file.

    Args:
        lead: predicted score of the strong expert less the weak one's, [n].
        weak: measured quality of the weak expert, [n].
        strong: measured quality of the strong expert, [n].
    """
    _, alike, count = np.unique(-lead, return_inverse=True, return_counts=True)
    mean = np.bincount(alike, weights=strong - weak) / count
    gained = np.concatenate([[0.0], np.cumsum(np.repeat(mean, count))])
    gap = float((strong - weak).sum())
    share = np.linspace(0.0, 1.0, len(gained))
    return share, gained / gap if gap != 0 else np.full(len(gained), np.nan)


def apgr(share: FloatArray, recovered: FloatArray) -> float:
    """Average performance gap recovered: the area under the curve; 0.5 is random."""
    return float(np.trapezoid(recovered, share))


def call_share(share: FloatArray, recovered: FloatArray, target: float) -> float | None:
    """CPT: the smallest share of strong calls that recovers `target` of the gap; `None` if none does."""
    reached = np.flatnonzero(recovered >= target)
    return float(share[reached[0]]) if len(reached) else None
