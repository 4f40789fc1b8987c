"""Ability of a model at each kind of task, from the catalogue and from facts, with its uncertainty.

A Gaussian process (Rasmussen and Williams 2006, chapter 2) on the logits of success rates: a benchmark's
difficulty, plus the model's ability, which follows its facts and varies by family, series, line and model;
each also by kind of task. A model that no source lists has the prior of its facts, and wide intervals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np

from router.core import FloatArray
from router.priors.catalogue import KINDS, Catalogue, CatalogueRow, load_catalogue
from router.priors.facts import Facts

FEATURES = {
    "size": 0.9,
    "size_unknown": 0.6,
    "sparse": 0.5,
    "year": 0.7,
    "year_unknown": 0.5,
    "thinking": 0.7,
    "tier": 0.7,
    "price": 0.6,
    "price_unknown": 0.4,
    "bits": 0.4,
}
"""Feature → prior standard deviation of its effect on the logit, in its unit (see `_features`)."""
BY_KIND = 0.3
"""The same for its effect on one kind of task, as a part of it."""
FOCUS = 0.5
"""Of the effect of having been made for this kind of task."""
GROUPS = {"family": (0.3, 0.15), "series": (0.3, 0.15), "line": (0.3, 0.2), "model": (0.2, 0.15)}
"""Group → prior standard deviations of its members' ability, and of its part for each kind of task."""
LEVEL, DIFFICULTY, DIFFICULTY_OF_KIND = 1.0, 1.0, 0.5
"""Of the mean over everything, of a benchmark, and of a kind."""
NOISE = 0.25
"""Of what a model is better or worse at on one benchmark only, for whatever reason."""


@dataclass(frozen=True)
class Abilities:
    """Predicted logits of success for some models at every kind of task, in the order of `KINDS`."""

    mean: FloatArray  # [models, kinds]
    covariance: FloatArray  # [models × kinds, models × kinds]

    @property
    def deviation(self) -> FloatArray:
        """Standard deviations of the logits, [models, kinds]."""
        found: FloatArray = np.sqrt(np.maximum(np.diag(self.covariance), 0.0)).reshape(self.mean.shape)
        return found

    @property
    def quality(self) -> FloatArray:
        """Expected success rates, [models, kinds]: the logistic mean over the uncertainty (MacKay 1992)."""
        shrunk = self.mean / np.sqrt(1 + np.pi * self.deviation**2 / 8)
        expected: FloatArray = 1 / (1 + np.exp(-shrunk))
        return expected

    def interval(self, z: float = 1.64) -> tuple[FloatArray, FloatArray]:
        """Bounds of the success rates, [models, kinds] each; by default of 90 %."""
        low, high = self.mean - z * self.deviation, self.mean + z * self.deviation
        return 1 / (1 + np.exp(-low)), 1 / (1 + np.exp(-high))


@dataclass(frozen=True)
class AbilityPrior:
    """The fitted process; `of` predicts for models."""

    rows: "_Points"
    weights: FloatArray  # [rows] dual weights
    inverse: FloatArray  # [rows, rows] of the lower Cholesky factor
    offset: float

    @classmethod
    def fit(cls, catalogue: Catalogue) -> Self:
        """Learn from a catalogue's rows."""
        logits, noise = _targets(catalogue.rows)
        points = _Points.of_rows(catalogue.rows)
        offset = float(logits.mean())
        kernel = points.kernel(points) + np.diag(noise)
        lower = np.linalg.cholesky(kernel)
        inverse = np.linalg.inv(lower)
        return cls(points, inverse.T @ (inverse @ (logits - offset)), inverse, offset)

    def of(self, models: Sequence[Facts]) -> Abilities:
        """Predicted abilities, at the mean difficulty of the benchmarks of each kind."""
        wanted = _Points.of_models(models, self.rows.benchmark_names)
        cross = wanted.kernel(self.rows)
        part = self.inverse @ cross.T
        covariance = wanted.kernel(wanted) - part.T @ part
        mean = (self.offset + cross @ self.weights).reshape(len(models), len(KINDS))
        return Abilities(mean, covariance)

    def evidence(self, logits: FloatArray) -> float:
        """Log marginal likelihood of the logits that it was fitted on."""
        fit = float((logits - self.offset) @ self.weights)
        return -0.5 * fit + float(np.log(np.diag(self.inverse)).sum())


@cache
def ability_prior() -> AbilityPrior:
    """The prior of the package's catalogue; takes about a second once."""
    return AbilityPrior.fit(load_catalogue())


def _targets(rows: Sequence[CatalogueRow]) -> tuple[FloatArray, FloatArray]:
    """Logits of the rows' success rates, and their variances, [rows] each."""
    n = np.array([row.n for row in rows], dtype=float)
    rate = (np.array([row.quality for row in rows]) * n + 0.5) / (n + 1)
    return np.log(rate / (1 - rate)), 1 / (n * rate * (1 - rate)) + NOISE**2


@dataclass(frozen=True)
class _Points:
    """Where the process is known or wanted: (model, kind, benchmarks) as numbers."""

    features: FloatArray  # [points, features]
    focus: FloatArray  # [points] whether the model was made for this kind
    groups: dict[str, list[object]]
    kinds: FloatArray  # [points]
    benchmarks: FloatArray  # [points, benchmarks] shares; rows sum to 1
    benchmark_names: tuple[tuple[str, str], ...]
    """(name, kind) of each benchmark."""

    @classmethod
    def of_rows(cls, rows: Sequence[CatalogueRow]) -> Self:
        names = tuple(sorted({(row.benchmark, row.kind) for row in rows}))
        at = {name: column for column, name in enumerate(names)}
        shares = np.zeros((len(rows), len(names)))
        shares[np.arange(len(rows)), [at[row.benchmark, row.kind] for row in rows]] = 1.0
        kinds = np.array([KINDS.index(row.kind) for row in rows])
        return cls(*_described([row.facts for row in rows], kinds), kinds, shares, names)

    @classmethod
    def of_models(cls, models: Sequence[Facts], names: tuple[tuple[str, str], ...]) -> Self:
        """Every model at every kind, over all benchmarks of that kind in equal shares."""
        kinds = np.tile(np.arange(len(KINDS)), len(models))
        shares = np.array([[float(of == kind) for _, of in names] for kind in KINDS])
        shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1)
        each = [facts for facts in models for _ in KINDS]
        return cls(*_described(each, kinds), kinds, shares[kinds], names)

    def kernel(self, other: "_Points") -> FloatArray:
        """Prior covariances, [points, other's points]."""
        same_kind = self.kinds[:, None] == other.kinds[None, :]
        scale = np.array(list(FEATURES.values()))
        linear = (self.features * scale**2) @ other.features.T
        total = LEVEL**2 + DIFFICULTY_OF_KIND**2 * same_kind
        total = total + linear + BY_KIND**2 * linear * same_kind
        total = total + FOCUS**2 * np.outer(self.focus, other.focus)
        for group, (general, of_kind) in GROUPS.items():
            mine, theirs = _codes(self.groups[group], other.groups[group])
            same = (mine[:, None] == theirs[None, :]) & (mine >= 0)[:, None]
            total = total + same * (general**2 + of_kind**2 * same_kind)
        covariance: FloatArray = total + DIFFICULTY**2 * (self.benchmarks @ other.benchmarks.T)
        return covariance


def _described(
    models: Sequence[Facts], kinds: FloatArray
) -> tuple[FloatArray, FloatArray, dict[str, list[object]]]:
    features = np.array([_features(facts) for facts in models])
    focus = np.array([float(facts.focus == KINDS[kind]) for facts, kind in zip(models, kinds, strict=True)])
    return features, focus, {group: [getattr(facts, group) for facts in models] for group in GROUPS}


def _features(facts: Facts) -> list[float]:
    """In the order of `FEATURES`.

    Size, sparseness and price in powers of ten, time in years, bits as a share of 16.
    """
    sized, priced = facts.total_b is not None, facts.output_usd is not None and facts.output_usd > 0
    return [
        np.log10(max(facts.total_b, 1e-6)) - 1.5 if facts.total_b is not None else 0.0,
        float(not sized),
        np.log10(facts.active_b / facts.total_b) if facts.active_b and facts.total_b else 0.0,
        facts.year if facts.year is not None else 0.0,
        float(facts.year is None),
        float(facts.thinking),
        float(facts.tier),
        np.log10(facts.output_usd) if priced and facts.output_usd else 0.0,
        float(not priced),
        (facts.bits - 16) / 16,
    ]


def _codes(mine: Sequence[object], theirs: Sequence[object]) -> tuple[FloatArray, FloatArray]:
    """Equal numbers for equal members; below 0 where there is none, [mine], [theirs]."""
    seen: dict[object, int] = {None: -1}
    codes = [np.array([seen.setdefault(one, len(seen)) for one in group]) for group in (mine, theirs)]
    return codes[0], codes[1]
