"""Several methods blended, with weights that cross-validation chooses.

Stacked generalisation (Wolpert 1992; Breiman 1996), separately for two parts of a score: the mean over
the experts (the level), and the differences between them (the contrast), which alone decide. Both are
deviations from the experts' means. The level is weighed by least squares, which calibrates it. The
contrast is weighed half by least squares and half equally, and scaled so that its decisions out of fold
are best: least squares minimises another loss than that of decisions (docs/research-log.md).
Where most queries have an outcome of one expert only, as in a log, no contrast is observed: both parts then
have the same weights, by least squares on what was observed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, IntArray, QueryBatch, TrainingSet
from router.errors import MethodError, WeightsError
from router.methods.arrays import clipped
from router.methods.contract import RoutingMethod
from router.methods.hull import area
from router.methods.registry import make, method_class
from router.methods.shrink import filled, global_means

FOLDS = 5
SCALES = tuple(np.geomspace(0.7, 4.0, 13).round(3).tolist())
"""Multiples of the blended contrast that are tried."""
TRIED_WEIGHTS = (0.0, *np.geomspace(0.003, 3.0, 25).tolist())
"""Cost weights at which a blend's decisions are tried."""
BEST_QUALITY = 0.1
"""Weight of the quality at cost weight 0, beside the area over the others."""
LEAST_COMPARED = 0.5
"""Share of queries with outcomes of several experts below which level and contrast have the same weights."""
NEAR = 0.0005
"""Among scales whose decisions are within this much of the best, the one that predicts best is taken."""


class EnsembleRouter:
    """A blend of members.

    Args:
        members: a name, or `{"name": …, "params": {…}}`, for each.
    """

    name: ClassVar[str] = "ensemble"
    DEFAULT: ClassVar[tuple[Any, ...]] = ("knn", "linear", "lexical", "tasks")

    def __init__(self, *, members: Sequence[Any] | None = None) -> None:
        self.members = members

    @property
    def params(self) -> dict[str, Any]:
        return {"members": None if self.members is None else list(self.members)}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        rng = np.random.default_rng(seed)
        folds: IntArray = rng.permutation(np.arange(len(training)) % FOLDS)
        self.fit_crosswise(training, folds, seed=seed)
        return self

    def fit_crosswise(self, training: TrainingSet, folds: IntArray, *, seed: int) -> FloatArray:
        """Fit, and return the out-of-fold scores that the weights were chosen on, [n, experts]."""
        from scipy.optimize import nnls

        members = [self._make(member) for member in self._members()]
        if not members:
            raise MethodError("an ensemble needs at least one member")
        apart = np.empty((len(members), *training.quality.shape))
        for fold in np.unique(folds):
            inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            part, queries = training.take(inside), training.queries.take(outside)
            for number, member in enumerate(self._members()):
                apart[number, outside] = self._make(member).fit(part, seed=seed).score(queries)
        self.means_ = global_means(training.quality)
        target = filled(training) - self.means_
        seen = np.isfinite(training.quality)
        if (seen.sum(axis=1) > 1).mean() < LEAST_COMPARED:
            self.level_, _ = nnls((apart - self.means_)[:, seen].T, target[seen])
            self.contrast_ = self.level_
        else:
            level, contrast = _parts(apart - self.means_)
            self.level_, _ = nnls(level.T, target.mean(axis=1))
            squares, _ = nnls(contrast[:, seen].T, _parts(target)[1][seen])
            self.contrast_ = self._decided(contrast, squares, training)
        self._mix()
        self.fitted_ = [member.fit(training, seed=seed) for member in members]
        return self._blend(apart)

    def score(self, queries: QueryBatch) -> FloatArray:
        return self._weighed(np.concatenate([member.score(queries) for member in self.fitted_], axis=1))

    def arrays(self) -> dict[str, FloatArray]:
        found = {"contrast": self.contrast_, "level": self.level_, "means": self.means_}
        for number, member in enumerate(self.fitted_):
            found |= {f"{number}.{name}": value for name, value in member.arrays().items()}
        return found

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        members = restored._members()
        shapes = {name: arrays[name].shape for name in ("contrast", "level", "means") if name in arrays}
        if (
            shapes.get("contrast") != (len(members),)
            or shapes.get("level") != (len(members),)
            or len(shapes) < 3
        ):
            raise WeightsError(
                f"the ensemble needs two weights for each of its {len(members)} members, and means"
            )
        restored.contrast_, restored.level_ = arrays["contrast"], arrays["level"]
        restored.means_ = arrays["means"]
        restored._mix()
        restored.fitted_ = []
        for number, member in enumerate(members):
            prefix = f"{number}."
            part = {n.removeprefix(prefix): value for n, value in arrays.items() if n.startswith(prefix)}
            name, given = _named(member)
            restored.fitted_.append(method_class(name).restore(given, part))
        return restored

    def _members(self) -> Sequence[Any]:
        return self.DEFAULT if self.members is None else self.members

    @staticmethod
    def _make(member: Any) -> RoutingMethod:
        name, given = _named(member)
        return make(name, given)

    def _decided(self, contrast: FloatArray, squares: FloatArray, training: TrainingSet) -> FloatArray:
        """Weights of the members' contrasts, [members].

        Args:
            contrast: [members, n, experts], out of fold.
            squares: the weights of least squares, [members].
            training: the outcomes that the decisions are compared with.
        """
        shares = np.full(len(contrast), 1 / len(contrast))
        if squares.sum() > 0:
            shares = (shares + squares / squares.sum()) / 2
        blended, judge = np.tensordot(shares, contrast, axes=1), _Worth(training, self.means_)
        worth = {scale: judge.of(scale * blended) for scale in SCALES}
        near = [scale for scale in SCALES if worth[scale] >= max(worth.values()) - NEAR]
        weights: FloatArray = shares * min(near, key=lambda scale: judge.error(scale * blended))
        return weights

    def _blend(self, scores: FloatArray) -> FloatArray:
        """The weighted scores: [members, n, experts] → [n, experts]."""
        return self._weighed(np.concatenate(tuple(scores), axis=1))

    def _weighed(self, scores: FloatArray) -> FloatArray:
        """The same from the members' scores side by side: [n, members × experts] → [n, experts]."""
        blended: FloatArray = scores @ self._mixing + self._offset
        # An easy query's scores are moved down together: clipped at 1, its experts would look equal.
        above = blended.max(axis=1, keepdims=True)
        if above.max(initial=0.0) > 1.0:
            blended -= np.maximum(above - 1.0, 0.0)
        return clipped(blended)

    def _mix(self) -> None:
        """Write the blend as one product and a sum: it is linear in the members' scores."""
        members, experts = len(self.contrast_), len(self.means_)
        mean = np.full((experts, experts), 1 / experts)
        parts = [
            level * mean + contrast * (np.eye(experts) - mean)
            for level, contrast in zip(self.level_, self.contrast_, strict=True)
        ]
        self._mixing = np.concatenate(parts)  # [members × experts, experts]
        self._offset = self.means_ - np.tile(self.means_, members) @ self._mixing


class _Worth:
    """The worth of contrasts by their decisions, on outcomes that they did not see.

    The area under their quality over its cost, at the experts' mean costs; where no cost is known, the
    negative prediction error.
    """

    def __init__(self, training: TrainingSet, means: FloatArray) -> None:
        self._means = means
        costs = training.costs_usd
        known = np.isfinite(training.quality)
        if costs is not None:
            known = known & np.isfinite(costs)
        rows = np.flatnonzero(known.all(axis=1))
        self._paid = None if costs is None or not len(rows) else costs[rows]
        self._rows = rows if self._paid is not None else np.arange(len(training))
        self._quality = training.quality[self._rows]

    def of(self, contrast: FloatArray) -> float:
        """The worth of contrasts [n, experts], in units of quality."""
        scores = self._means + contrast[self._rows]
        if self._paid is None or not self._paid.mean() > 0:
            return -self.error(contrast)
        alone, each = self._paid.mean(axis=0), np.arange(len(scores))
        picked = [(scores - weight * alone / alone.max()).argmax(axis=1) for weight in TRIED_WEIGHTS]
        quality = np.array([self._quality[each, chosen].mean() for chosen in picked])
        costs = np.array([self._paid[each, chosen].mean() for chosen in picked])
        aiq = area(costs, quality, float(alone.min()), float(alone.max()))
        return aiq + BEST_QUALITY * float(quality[0])

    def error(self, contrast: FloatArray) -> float:
        """Mean squared error of contrasts [n, experts], as contrasts."""
        off = self._quality - self._means - contrast[self._rows]
        return float(np.nanmean((off - np.nanmean(off, axis=1, keepdims=True)) ** 2))


class AutoRouter(EnsembleRouter):
    """The default: members that work well together; cross-validation weighs them for the data.

    A saved policy names its members, so that it stays readable when the default gets better.
    """

    name: ClassVar[str] = "auto"
    DEFAULT: ClassVar[tuple[Any, ...]] = (
        {"name": "clusters", "params": {"clusters": 256, "sharpness": 30.0, "soft": True}},
        {"name": "clusters", "params": {"clusters": 48, "sharpness": 20.0}},
        {"name": "linear", "params": {"penalty": 100.0, "surface": True}},
        {"name": "lexical", "params": {"penalty": 10.0}},
        {"name": "tasks"},
    )
    UNNAMED: ClassVar[tuple[Any, ...]] = (
        {"name": "knn", "params": {"k": 150, "sharpness": 8.0}},
        {"name": "knn", "params": {"k": 400, "sharpness": 8.0}},
        {"name": "linear", "params": {"penalty": 100.0, "surface": True}},
        {"name": "lexical", "params": {"penalty": 30.0}},
        {"name": "tasks"},
        {"name": "clusters", "params": {"clusters": 16}},
    )
    """Members of the policies that were saved before members were named; never to be changed."""

    @property
    def params(self) -> dict[str, Any]:
        return {"members": list(self._members())}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        return super().restore(params if "members" in params else {"members": cls.UNNAMED}, arrays)


def _parts(deviations: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Deviations from the means [..., experts] as (level [...], contrast [..., experts])."""
    level = deviations.mean(axis=-1)
    contrast: FloatArray = deviations - level[..., None]
    return level, contrast


def _named(member: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(member, str):
        return member, {}
    try:
        return member["name"], dict(member.get("params", {}))
    except (KeyError, TypeError) as error:
        raise MethodError(f"a member is a name or {{name, params}}, found {member!r}") from error
