"""Outcomes with responses: two small experts that are wrong in different ways, and a large one."""

import random
from typing import Any

from router.data.dataset import Dataset, to_dataset
from router.experts import CandidatePool, ExpertProfile, Price

POOL = CandidatePool(
    [
        ExpertProfile("small", Price(0.05, 0.1)),
        ExpertProfile("code", Price(0.05, 0.1)),
        ExpertProfile("large", Price(5.0, 10.0)),
    ]
)
RIGHT = {"small": 0.7, "code": 0.7, "large": 0.85}


def rows(n: int, *, seed: int = 0, samples: int = 1) -> list[dict[str, Any]]:
    """Sums, answered right or with a number drawn at random; agreement thus proves an answer."""
    rng = random.Random(seed)
    made = []
    for number in range(n):
        a, b = rng.randint(1, 999), rng.randint(1, 999)
        for expert in POOL.names:
            for sample in range(samples):
                right = rng.random() < RIGHT[expert]
                made.append(
                    {
                        "query_id": f"q{number}",
                        "query": f"What is {a} plus {b}?",
                        "expert": expert,
                        "sample": sample,
                        "quality": float(right),
                        "response": f"The answer is {a + b if right else rng.randint(2, 1998)}.",
                        "prompt_tokens": 12,
                        "completion_tokens": 9,
                        "latency_s": 0.9 if expert == "large" else 0.3,
                        "ttft_s": 0.1,
                    }
                )
    return made


def with_logprobs(made: list[dict[str, Any]], tokens: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Answers of so many tokens, whose first ones are the surer the more probably the answer is right."""
    rng = random.Random(seed)
    certain = []
    for row in made:
        doubt = rng.uniform(0.01, 0.3) if row["quality"] else rng.uniform(0.2, 1.5)
        certain.append({**row, "token_logprobs": [-doubt] * tokens, "completion_tokens": tokens})
    return certain


def answered(n: int = 200, *, seed: int = 0, samples: int = 1) -> Dataset:
    return to_dataset(rows(n, seed=seed, samples=samples), pool=POOL)
