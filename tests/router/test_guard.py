"""A query is familiar when any reference is near, wherever it is kept."""

import numpy as np
import pytest

from router.core import FloatArray
from router.guard import FIRST, NoveltyGuard


def unit(rows: int, *, seed: int) -> FloatArray:
    values = np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)
    made: FloatArray = values / np.linalg.norm(values, axis=1, keepdims=True)
    return made


@pytest.mark.parametrize("references", [1, FIRST, FIRST + 1, 3 * FIRST])
def test_every_reference_is_looked_at(references: int) -> None:
    guard = NoveltyGuard(unit(references, seed=0), 0.8, np.zeros(2))
    queries = np.concatenate([unit(60, seed=1), guard.references[-1:]])

    nearest = (queries @ guard.references.T).max(axis=1)
    np.testing.assert_array_equal(guard.unfamiliar(queries), nearest < 0.8)
    assert not guard.unfamiliar(queries)[-1]


def test_a_row_that_is_not_finite_is_unfamiliar() -> None:
    guard = NoveltyGuard(unit(2 * FIRST, seed=0), -1.0, np.zeros(2))
    rows = unit(2, seed=1)
    rows[0, 0] = np.nan

    assert guard.unfamiliar(rows).tolist() == [True, False]
