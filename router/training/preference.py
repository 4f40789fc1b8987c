"""Choose the cost weights that a policy records: they must hold on queries that the scores did not see."""

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from router.core import BoolArray, FloatArray, IntArray, Preferences
from router.decide import decide

LEAST_QUERIES = 20
"""Different queries that training, and the choice of a cost weight, need."""
COST_WEIGHTS = (0.0, *np.geomspace(0.003, 30.0, 60).round(6).tolist(), 1e6)
"""Preferences that are tried and that the cost–quality curve shows."""
MOST_LOSS = 0.01
"""Quality that the default preference may give up for a saving."""
CONFIDENCE_Z = 0.7
"""Standard errors by which the chosen preference must not fall below the best single expert."""


@dataclass(frozen=True)
class PreferenceTrial:
    """The result of one cost weight on queries that the scores did not see."""

    cost_weight: float
    gain: float
    """Mean quality over the best single expert's."""
    margin: float
    """That gain less `CONFIDENCE_Z` standard errors of the paired differences."""
    loss: float
    """Mean quality under cost weight 0's."""
    tolerated: float
    """Loss that is worth the saving: within a standard error, and within `MOST_LOSS`."""
    saved: float
    """Share of the best single expert's cost; 0 where no cost is known."""

    def to_json(self) -> dict[str, float]:
        names = ("cost_weight", "gain", "margin", "saved")
        return {name: float(getattr(self, name)) for name in names}


@dataclass(frozen=True)
class PreferenceChoice:
    """The preferences that training chooses, all by out-of-fold results."""

    best_quality: PreferenceTrial
    """Cost weight 0."""
    default: PreferenceTrial
    """The greatest saving with almost no loss of quality."""
    equal_quality: PreferenceTrial | None
    """The greatest saving that keeps the best single expert's quality, with a margin; `None` where no
    safe weight saves anything: then the best single expert itself is the choice."""


class Outcomes(Protocol):
    """Measured outcomes of the candidates, such as a data set's of its experts."""

    @property
    def quality(self) -> FloatArray: ...

    @property
    def costs_usd(self) -> FloatArray | None: ...

    def complete(self) -> IntArray: ...


def choose_preference(
    scores: FloatArray,
    expected: FloatArray | None,
    outcomes: Outcomes,
    *,
    best: int,
    experts: int | None = None,
    eligible: BoolArray | None = None,
    certainty: float = CONFIDENCE_Z,
) -> PreferenceChoice:
    """Cost weights that hold out of sample, chosen by a lower confidence bound.

    A weight is safe when its `margin` over the best single expert is not negative. With none safe, or
    with costs of fewer than 20 complete queries, the default is weight 0.

    Args:
        scores: [n, candidates], each row by a method that never saw it.
        expected: [n, candidates] US$, as the policy will expect them.
        outcomes: measured.
        best: column of the best single expert.
        experts: the first columns; the others are plans. `None` for all.
        eligible: [n, candidates]; `None` for all.
        certainty: standard errors that make up the `margin`.
    """
    rows, costs = _priced(outcomes, expected), outcomes.costs_usd
    trial = partial(
        _trial, scores=scores, outcomes=outcomes, best=best, experts=experts, eligible=eligible, z=certainty
    )
    if costs is None or len(rows) < LEAST_QUERIES or not costs[rows, best].mean() > 0:
        tried = [trial(0.0, expected=None, rows=outcomes.complete())]
    else:
        tried = [trial(weight, expected=expected, rows=rows) for weight in COST_WEIGHTS]
    safe = [one for one in tried if one.margin >= 0] if len(tried) > 1 else []
    near = [one for one in safe if one.loss <= one.tolerated]
    return PreferenceChoice(
        tried[0],
        max(near, key=lambda one: one.saved, default=tried[0]),
        max((one for one in safe if one.saved > 0), key=lambda one: one.saved, default=None),
    )


def _priced(outcomes: Outcomes, expected: FloatArray | None) -> IntArray:
    """Complete rows in which every candidate's cost is known, both the measured and the expected one."""
    rows, costs = outcomes.complete(), outcomes.costs_usd
    if costs is None or expected is None:
        return rows[:0]
    return rows[np.isfinite(costs[rows] + expected[rows]).all(axis=1)]


def _trial(
    weight: float,
    *,
    scores: FloatArray,
    expected: FloatArray | None,
    outcomes: Outcomes,
    rows: IntArray,
    best: int,
    experts: int | None,
    eligible: BoolArray | None,
    z: float,
) -> PreferenceTrial:
    if not len(rows):
        return PreferenceTrial(weight, 0.0, 0.0, 0.0, 0.0, 0.0)
    quality, each = outcomes.quality[rows], np.arange(len(rows))
    costs = None if expected is None else expected[rows]
    allowed = None if eligible is None else eligible[rows]
    chosen, at_zero = (
        decide(
            scores[rows], costs, preferences=Preferences(cost_weight=one), eligible=allowed, experts=experts
        ).best
        for one in (weight, 0.0)
    )
    gain = quality[each, chosen] - quality[:, best]
    loss = quality[each, at_zero] - quality[each, chosen]
    paid = None if outcomes.costs_usd is None else outcomes.costs_usd[rows]
    known = paid is not None and bool(np.isfinite(paid).all())
    alone = 0.0 if paid is None or not known else float(paid[:, best].mean())
    return PreferenceTrial(
        cost_weight=float(weight),
        gain=float(gain.mean()),
        margin=float(gain.mean() - z * _standard_error(gain)),
        loss=float(loss.mean()),
        tolerated=min(_standard_error(loss), MOST_LOSS),
        saved=0.0 if paid is None or alone <= 0 else 1 - float(paid[each, chosen].mean()) / alone,
    )


def _standard_error(differences: FloatArray) -> float:
    return float(differences.std() / np.sqrt(len(differences)))
