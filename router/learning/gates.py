"""Gates: whether a learned policy is kept, with the error budget divided among all that were tried.

Each gate on one log is recorded beside it, so that trying often does not find a gain by luck.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from router.errors import InputError
from router.files import write_atomically
from router.learning.estimators import Estimate, Obstacle

FILE = "gates.jsonl"
BUDGET = 0.05
"""Probability that any of a log's gates keeps a policy that is not better."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One trial of a policy."""

    time: str
    policy: str
    """In effect."""
    candidate: str
    alpha: float
    kept: bool
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    effective_n: float = 0.0
    obstacle: Obstacle | None = None


def read_gates(folder: Path) -> list[Gate]:
    """The gates that were tried on a log, oldest first.

    Raises:
        InputError: the file is damaged: a gate that is not counted would widen the error budget.
    """
    file = folder / FILE
    if not file.exists():
        return []
    try:
        return [Gate(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines() if line]
    except (ValueError, TypeError) as error:
        raise InputError(f"{file} is damaged, so gates cannot be counted: {error}") from error


def alpha_of(tried: int) -> float:
    """Error probability of the next gate, after so many; over all of them it sums to `BUDGET`."""
    return BUDGET / ((tried + 1) * (tried + 2))


def passes(found: Estimate) -> bool:
    """Whether the lower bound of the gain over the policy in effect is above 0."""
    return found.gain is not None and found.gain.low > 0


def record(folder: Path, gate: Gate) -> None:
    """Add a gate to the log's record.

    Raises:
        InputError: the record is damaged.
        OSError: it cannot be written.
    """
    lines = [json.dumps(asdict(one)) for one in (*read_gates(folder), gate)]
    write_atomically(folder / FILE, "\n".join(lines) + "\n", mode=0o600, durable=True)
