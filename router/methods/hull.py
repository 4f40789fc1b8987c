"""The convex hull of cost–quality points and the area under it: AIQ of RouterBench (arXiv 2403.12031)."""

import numpy as np

from router.core import FloatArray


def hull(costs: FloatArray, quality: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The non-decreasing upper convex hull of points: (costs, quality), by rising cost."""
    order = np.lexsort((-quality, costs))
    kept: list[tuple[float, float]] = []
    for x, y in zip(costs[order], quality[order], strict=True):
        if kept and y <= kept[-1][1]:
            continue  # more expensive and no better
        while len(kept) >= 2 and _below(kept[-2], kept[-1], (x, y)):
            kept.pop()
        kept.append((float(x), float(y)))
    points = np.array(kept)
    return points[:, 0], points[:, 1]


def area(costs: FloatArray, quality: FloatArray, low: float, high: float) -> float:
    """AIQ: the mean height of the points' hull between two costs.

    Beyond its most expensive point a hull continues level; below its cheapest it is taken as level too,
    because no cheaper point is known.
    """
    if high <= low:
        return float(np.max(quality))
    x, y = hull(costs, quality)
    at = np.unique(np.concatenate([x[(x > low) & (x < high)], [low, high]]))
    return float(np.trapezoid(np.interp(at, x, y), at) / (high - low))


def _below(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies on or under the line from a to c."""
    return bool((b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0]))
