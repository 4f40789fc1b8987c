"""Example queries of an evaluation, for people: which candidate each is sent to, and which is best."""

import math
from typing import Any

import numpy as np

from router.evaluation.evaluate import EvaluatedPolicy

LONGEST = 200
"""Characters of a query that are kept."""


def examples(judged: EvaluatedPolicy, per_task: int) -> list[dict[str, Any]]:
    """The first queries of each task, at the policy's own preference."""
    chosen = judged.choices(judged.policy.preferences)
    tasks = np.array(judged.dataset.tasks or ("all",) * len(chosen))
    best = judged.quality >= judged.quality.max(axis=1, keepdims=True)
    names = judged.names
    return [
        {
            "query": judged.dataset.texts[row][:LONGEST],
            "task": str(task),
            "sent": names[chosen[row]],
            "score": _finite(judged.scores[row, chosen[row]]),
            "best": [name for column, name in enumerate(names) if best[row, column]],
        }
        for task in np.unique(tasks)
        for row in np.flatnonzero(tasks == task)[:per_task]
    ]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
