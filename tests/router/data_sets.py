"""Small outcomes made from a seed, with a signal that a router can find."""

import random
from typing import Any

import numpy as np

from router.core import FloatArray, QueryBatch, TrainingSet
from router.data.dataset import Dataset, to_dataset
from router.experts import CandidatePool, ExpertProfile, Price

POOL = CandidatePool(
    [
        ExpertProfile("sums", Price(0.05, 0.1), 512),
        ExpertProfile("words", Price(0.05, 0.1), 512),
        ExpertProfile("large", Price(0.5, 1.0), 512),
    ]
)


def rows(n: int = 200, *, seed: int = 0) -> list[dict[str, Any]]:
    """Outcomes of three experts: one good at sums, one at words, one fair at both and dear."""
    rng = random.Random(seed)
    made = []
    for number in range(n):
        task = rng.choice(["sums", "words"])
        query = (
            f"What is {rng.randint(1, 99)} plus {rng.randint(1, 99)}?"
            if task == "sums"
            else f"Spell the word {''.join(rng.choices('abcdefgh', k=6))} backwards"
        )
        for expert in POOL.names:
            right = {"large": 0.7}.get(expert, 0.95 if expert == task else 0.05)
            made.append(
                {
                    "query_id": f"q{number}",
                    "query": query,
                    "expert": expert,
                    "quality": float(rng.random() < right),
                    "prompt_tokens": 12,
                    "completion_tokens": rng.randint(2, 9),
                    "task": task,
                }
            )
    return made


def dataset(n: int = 200, *, seed: int = 0) -> Dataset:
    return to_dataset(rows(n, seed=seed), pool=POOL)


def embeddings(texts: tuple[str, ...], dimension: int = 16) -> FloatArray:
    """Unit vectors in which the two kinds of question lie apart; no encoder needed."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2, dimension))
    made = np.stack(
        [
            centres[int(text.startswith("Spell"))]
            + 0.3 * np.random.default_rng(abs(hash_of(text))).normal(size=dimension)
            for text in texts
        ]
    )
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def hash_of(text: str) -> int:
    from zlib import crc32

    return crc32(text.encode("utf-8", "replace"))


def training(n: int = 200, *, seed: int = 0) -> TrainingSet:
    data = dataset(n, seed=seed)
    batch = QueryBatch(data.texts, embeddings(data.texts))
    return TrainingSet(batch, data.quality, data.costs_usd, data.tasks)
