"""Turn scores and costs into rankings.

Pure numpy. Knows nothing of encoders, methods or requests in flight, so that serving, evaluation
and the cost–quality curve all decide in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.core import BoolArray, FloatArray, IntArray, Preferences

ROUNDING = 1e-12
"""A score this little under the bar of `min_quality` reaches it: 0.9 × 0.7 is not quite 0.63."""


@dataclass(frozen=True, slots=True)
class Rankings:
    """Experts of each row, best first."""

    order: IntArray  # [n, experts] columns; the eligible ones stand first
    eligible: IntArray  # [n] how many of them are eligible

    @property
    def best(self) -> IntArray:
        """Each row's first choice, [n]; meaningless where `eligible` is 0."""
        return self.order[:, 0]

    def row(self, index: int) -> list[int]:
        """The eligible columns of one row, best first."""
        return [int(column) for column in self.order[index, : self.eligible[index]]]


def decide(
    scores: FloatArray,
    costs: FloatArray | None,
    *,
    preferences: Sequence[Preferences] | Preferences,
    eligible: BoolArray | None = None,
) -> Rankings:
    """Rank the pool for each row.

    With `cost_weight` (0 when nothing is said) by score − cost_weight × cost / (dearest eligible cost
    of the row); ties go to the cheaper expert, then to the one that stands first in the pool. With
    `min_quality` the experts whose score reaches that fraction of the row's best eligible score,
    cheapest first (ties: higher score, then pool order), then the others by score. Ineligible experts
    are left out, not pushed to the end.

    Args:
        scores: [n, experts] in [0, 1].
        costs: [n, experts] US$; NaN counts as the row's dearest, `None` as no cost at all.
        preferences: one for all rows, or one for each.
        eligible: [n, experts]; `None` for all.
    """
    n, width = scores.shape
    allowed = np.ones((n, width), dtype=bool) if eligible is None else eligible
    relative = _relative(costs, allowed)
    each = [preferences] * n if isinstance(preferences, Preferences) else preferences
    weight = np.array([item.cost_weight or 0.0 for item in each], dtype=np.float64)
    floor = np.array([np.nan if item.min_quality is None else item.min_quality for item in each])

    # Keys to sort by, ascending: who comes first at all, what decides, what breaks its ties.
    behind = np.zeros((n, width), dtype=bool)
    first, second = weight[:, None] * relative - scores, relative
    if not np.isnan(floor).all():
        best = np.where(allowed, scores, -np.inf).max(axis=1)
        with np.errstate(invalid="ignore"):
            passes = allowed & (scores >= (floor * best)[:, None] - ROUNDING)
        has_floor = ~np.isnan(floor)[:, None]
        behind = has_floor & ~passes
        first = np.where(has_floor, np.where(passes, relative, -scores), first)
        second = np.where(has_floor & passes, -scores, second)
    columns = np.broadcast_to(np.arange(width), (n, width))
    order = np.lexsort((columns, second, first, behind, ~allowed), axis=1)  # sorts by its last key first
    return Rankings(order, allowed.sum(axis=1))


def _relative(costs: FloatArray | None, allowed: BoolArray) -> FloatArray:
    """Costs as fractions of each row's dearest eligible one, [n, experts]."""
    if costs is None:
        return np.zeros(allowed.shape)
    dearest = np.where(allowed & np.isfinite(costs), costs, 0.0).max(axis=1, keepdims=True)
    known = np.where(np.isfinite(costs), costs, dearest)
    relative: FloatArray = np.zeros(known.shape)
    np.divide(known, dearest, out=relative, where=dearest > 0)
    return relative
