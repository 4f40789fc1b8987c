"""Embeddings of recent queries: the ones used last, within a bound of bytes that counts everything."""

import tracemalloc

import numpy as np

from deployments.routing.embedding_cache import ENTRY_BYTES, EmbeddingCache

ROW = np.ones(384, dtype=np.float32)
ENTRY = ROW.nbytes + ENTRY_BYTES


def test_the_cache_of_embeddings_is_bounded() -> None:
    cache = EmbeddingCache(2 * ENTRY)
    for number in range(5):
        cache.put(str(number), ROW)

    assert [cache.get(str(number)) is not None for number in range(5)] == [False] * 3 + [True] * 2
    assert cache.nbytes == 2 * ENTRY


def test_the_embedding_used_longest_ago_is_dropped() -> None:
    cache = EmbeddingCache(2 * ENTRY)
    for text in ("a", "b"):
        cache.put(text, ROW)
    cache.get("a")
    cache.put("c", ROW)

    assert (cache.get("a") is not None, cache.get("b")) == (True, None)


def test_a_text_put_twice_counts_once() -> None:
    cache = EmbeddingCache()
    cache.put("a", ROW)
    cache.put("a", 2 * ROW)
    row = cache.get("a")

    assert row is not None
    assert (len(cache), cache.nbytes, row[0]) == (1, ENTRY, 2)


def test_long_texts_take_no_more_memory_than_the_bound() -> None:
    max_bytes = 2_000_000
    cache = EmbeddingCache(max_bytes)
    tracemalloc.start()
    try:
        for number in range(5000):
            cache.put(f"{number} " + "x" * 8000, np.ones((4, 384), dtype=np.float32)[number % 4])
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(cache) > 1000
    assert used < max_bytes


def test_a_lone_surrogate_is_a_text_too() -> None:
    cache = EmbeddingCache()
    cache.put("\ud800", ROW)

    assert cache.get("\ud800") is not None
