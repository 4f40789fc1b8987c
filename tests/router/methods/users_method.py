"""A method as a user would write it: one file, no import of ours but the nouns; and how it is installed."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest

from router.core import FloatArray, QueryBatch, TrainingSet
from router.methods.registry import GROUP

POINTS = {
    "spelling": "tests.router.methods.users_method:SpellingRouter",
    "nothing": "tests.router.data_sets:POOL",
}


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution's metadata on the path, as pip leaves it there."""
    told = folder / "users_router-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: users-router\nVersion: 1.0\n")
    lines = "".join(f"{name} = {where}\n" for name, where in POINTS.items())
    (told / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    importlib.invalidate_caches()


class SpellingRouter:
    """Two means: of the queries that begin with a word, and of the others."""

    name: ClassVar[str] = "spelling"

    def __init__(self, *, word: str = "Spell") -> None:
        self.word = word

    @property
    def params(self) -> dict[str, Any]:
        return {"word": self.word}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        begins = self._begins(training.queries)
        self.means_ = np.stack([np.nanmean(training.quality[begins == part], axis=0) for part in (0, 1)])
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        scores: FloatArray = self.means_[self._begins(queries)]
        return scores

    def arrays(self) -> dict[str, FloatArray]:
        return {"means": self.means_}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        restored.means_ = arrays["means"]
        return restored

    def _begins(self, queries: QueryBatch) -> Any:
        return np.array([int(text.startswith(self.word)) for text in queries.texts], dtype=int)
