"""Several methods blended, with weights that cross-validation chooses.

Stacked generalisation (Wolpert 1992; Breiman 1996) with non-negative weights that sum to one. What
decides is the *difference* between experts, so differences and level are blended apart. The pool's
means are always among the members: their weight is the shrinkage that the data ask for.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, IntArray, QueryBatch, TrainingSet
from router.errors import MethodError, WeightsError
from router.methods.contract import RoutingMethod
from router.methods.registry import make, method_class
from router.methods.shrink import filled

FOLDS = 5


class EnsembleRouter:
    """A blend of members.

    Args:
        members: a name, or `{"name": …, "params": {…}}`, for each.
    """

    name: ClassVar[str] = "ensemble"
    DEFAULT: ClassVar[tuple[Any, ...]] = ("fixed", "knn", "linear", "lexical", "tasks")

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
        members = [self._make(member) for member in self._members()]
        if not members:
            raise MethodError("an ensemble needs at least one member")
        apart = np.empty((len(members), *training.quality.shape))
        for fold in np.unique(folds):
            inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            part, asked = training.take(inside), training.queries.take(outside)
            for number, member in enumerate(self._members()):
                apart[number, outside] = self._make(member).fit(part, seed=seed).score(asked)
        seen = np.isfinite(training.quality)
        target = filled(training)
        self.contrast_ = blend(_contrast(apart), _contrast(target[None])[0], seen)
        self.level_ = blend(apart, target, seen)
        self.fitted_ = [member.fit(training, seed=seed) for member in members]
        return self._blend(apart)

    def score(self, queries: QueryBatch) -> FloatArray:
        return self._blend(np.stack([member.score(queries) for member in self.fitted_]))

    def arrays(self) -> dict[str, FloatArray]:
        found = {"contrast": self.contrast_, "level": self.level_}
        for number, member in enumerate(self.fitted_):
            found |= {f"{number}.{name}": value for name, value in member.arrays().items()}
        return found

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        members = restored._members()
        if arrays.get("contrast", np.empty(0)).shape != (len(members),) or "level" not in arrays:
            raise WeightsError(f"the ensemble needs a weight for each of its {len(members)} members")
        restored.contrast_, restored.level_ = arrays["contrast"], arrays["level"]
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

    def _blend(self, scores: FloatArray) -> FloatArray:
        """[members, n, experts] → [n, experts]"""
        contrast = np.tensordot(self.contrast_, _contrast(scores), axes=1)
        level = np.tensordot(self.level_, scores, axes=1).mean(axis=1, keepdims=True)
        blended: FloatArray = np.clip(level + contrast, 0.0, 1.0)
        return blended


class AutoRouter(EnsembleRouter):
    """The default: what has proved itself together; cross-validation weighs it for the data at hand."""

    name: ClassVar[str] = "auto"
    DEFAULT: ClassVar[tuple[Any, ...]] = (
        "fixed",
        {"name": "knn", "params": {"k": 60, "sharpness": 12.0}},
        {"name": "knn", "params": {"k": 300, "sharpness": 8.0}},
        {"name": "linear", "params": {"penalty": 100.0, "surface": True}},
        {"name": "linear", "params": {"penalty": 10.0, "surface": True}},
        {"name": "lexical", "params": {"penalty": 10.0}},
        "tasks",
        "clusters",
    )

    def __init__(self) -> None:
        super().__init__()

    @property
    def params(self) -> dict[str, Any]:
        return {}


def blend(scores: FloatArray, target: FloatArray, seen: FloatArray | Any) -> FloatArray:
    """Non-negative weights, summing to one, that bring members' scores nearest to the target, [members].

    Args:
        scores: [members, n, experts].
        target: [n, experts].
        seen: [n, experts] which targets were measured.
    """
    from scipy.optimize import nnls

    columns = scores[:, seen].T
    scale = 1e3 * max(float(np.abs(columns).max()), 1e-12) * np.sqrt(len(columns))
    design = np.vstack([columns, np.full((1, columns.shape[1]), scale)])
    weights, _ = nnls(design, np.concatenate([target[seen], [scale]]))
    total = weights.sum()
    if total <= 0:
        return np.full(len(scores), 1 / len(scores))
    share: FloatArray = weights / total
    return share


def _contrast(scores: FloatArray) -> FloatArray:
    """Scores less the row's mean over the pool: what decides between experts."""
    contrast: FloatArray = scores - scores.mean(axis=-1, keepdims=True)
    return contrast


def _named(member: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(member, str):
        return member, {}
    try:
        return member["name"], dict(member.get("params", {}))
    except (KeyError, TypeError) as error:
        raise MethodError(f"a member is a name or {{name, params}}, found {member!r}") from error
