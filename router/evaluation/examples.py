"""Example queries of an evaluation, for people: which candidate each is sent to, and which is best."""

import math
from typing import Any

import numpy as np

from router.core import IntArray
from router.evaluation.evaluate import EvaluatedPolicy

LONGEST = 200
"""Characters of a query that are kept."""


def examples(judged: EvaluatedPolicy, per_task: int) -> list[dict[str, Any]]:
    """Queries of each task, evenly spaced, at the policy's own preference."""
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
        for row in _spaced(np.flatnonzero(tasks == task), per_task)
    ]


def _spaced(rows: IntArray, most: int) -> IntArray:
    spaced: IntArray = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))]
    return spaced


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
