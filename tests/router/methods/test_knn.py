"""Nearest neighbours are the same, in bounded memory, for any number of queries at once."""

import tracemalloc

import numpy as np

from router.methods.knn import _Searcher


def unit_rows(n: int, *, seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(n, 16)).astype(np.float32)
    rows: np.ndarray = made / np.linalg.norm(made, axis=1, keepdims=True)
    return rows


def test_a_search_in_chunks_finds_what_one_search_finds_in_less_memory() -> None:
    index, asked = unit_rows(2000, seed=0), unit_rows(1000, seed=1)
    near, rows = _Searcher(index)(asked, 10)
    searcher = _Searcher(index, cells=20_000)
    tracemalloc.start()
    near_too, rows_too = searcher(asked, 10)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    np.testing.assert_array_equal(rows_too, rows)
    np.testing.assert_allclose(near_too, near, atol=1e-6)
    assert peak_bytes < 2_000_000  # all similarities together are 8 MB


def test_no_queries_have_no_neighbours() -> None:
    near, rows = _Searcher(unit_rows(5, seed=0))(unit_rows(0, seed=1), 3)

    assert near.shape == rows.shape == (0, 3)
