"""Speed of training on 8,000 queries × 10 experts, scoring 64 embeddings, and a kNN index of 1 million rows.

Synthetic outcomes; wall times without encoding, the best of several for scoring.
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np

from router.core import FloatArray, QueryBatch, RouteRequest, TrainingSet
from router.data.dataset import Dataset
from router.encoders import DEFAULT
from router.experts import CandidatePool, ExpertProfile, Price
from router.methods.knn import KnnRouter
from router.training.train import train

QUERIES, EXPERTS, BATCH, INDEXED = 8000, 10, 64, 1_000_000
TOPICS = 20
REPEATS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="not read; every experiment takes it")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--rows", type=int, default=INDEXED, help="rows of the kNN index")
    options = parser.parse_args()
    dataset, embeddings = made(QUERIES)
    began = time.perf_counter()
    policy = train(dataset, embeddings, DEFAULT, method=options.method)
    print(f"- training {options.method} on {QUERIES} × {EXPERTS}: {time.perf_counter() - began:.1f} s")
    batch = QueryBatch(dataset.texts[:BATCH], embeddings[:BATCH])
    requests = [RouteRequest(text) for text in batch.texts]
    print(f"- scoring {BATCH} embeddings: {_best(lambda: policy.score(batch)):.2f} ms")
    print(f"- deciding for {BATCH}, costs and all: {_best(lambda: policy.decide(batch, requests)):.2f} ms")
    _index(options.rows)


def made(count: int) -> tuple[Dataset, FloatArray]:
    """Make queries of several topics, on which experts differ, with tokens and prices."""
    rng = np.random.default_rng(0)
    topic = rng.integers(0, TOPICS, count)
    centres = rng.normal(size=(TOPICS, DEFAULT.dimension))
    points = centres[topic] + rng.normal(size=(count, DEFAULT.dimension))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    chance = rng.uniform(0.2, 0.9, (TOPICS, EXPERTS))[topic]
    words = [f"w{number}" for number in range(5000)]
    texts = tuple(f"t{topic[row]} " + " ".join(rng.choice(words, 60)) for row in range(count))
    names = [f"expert{number}" for number in range(EXPERTS)]
    pool = CandidatePool([ExpertProfile(n, Price(0.1 * (1 + i), 0.2 * (1 + i))) for i, n in enumerate(names)])
    measured = {
        "quality": (rng.random(chance.shape) < chance).astype(float),
        "prompt_tokens": np.full(chance.shape, 80.0),
        "completion_tokens": rng.integers(20, 400, chance.shape).astype(float),
    }
    tasks = tuple(f"task{number}" for number in topic)
    return Dataset(pool, tuple(f"q{row}" for row in range(count)), texts, measured, tasks, None), points


def _index(rows: int) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(rows, DEFAULT.dimension)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    quality = rng.integers(0, 2, (rows, EXPERTS)).astype(np.float32)
    batch = QueryBatch(("",) * BATCH, points[:BATCH].copy())
    began = time.perf_counter()
    router = KnnRouter().fit(TrainingSet(QueryBatch(("",) * rows, points), quality), seed=0)
    fit_s = time.perf_counter() - began
    score_ms = _best(lambda: router.score(batch), repeats=5)
    size = sum(array.nbytes for array in router.arrays().values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"- kNN index of {rows:,} rows: made in {fit_s:.1f} s, {BATCH} scored in {score_ms:.0f} ms;")
    print(f"  {size / 2**30:.2f} GiB on disk, {peak:.1f} GiB at most in memory while it was made")


def _best(work: Callable[[], object], *, repeats: int = REPEATS) -> float:
    """Return the milliseconds of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1000 * min(times)


if __name__ == "__main__":
    main()
