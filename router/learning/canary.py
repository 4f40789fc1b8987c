"""A canary: the units that it serves, and whether its values are worse than those of the policy in effect.

Pure functions, the same on every replica and in a simulation. Knows nothing of requests.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from router.core import ArmName
from router.learning.exploration import uniform
from router.learning.sequential import Comparison, Sums, Verdict, compare

ALPHA = {"quality": 0.04, "success": 0.01, "cost_usd": 0.025, "latency_s": 0.025}
"""Measure → probability that equal arms are ever called worse by it.

Only quality and success end a canary, so an equal one is rolled back with a probability of at most 0.05.
"""
ID_DIGITS = 12
NO_SUMS = Sums()


@dataclass(frozen=True, slots=True)
class ArmSums:
    """What was measured of one arm; sums of several replicas add up in any order."""

    quality: Sums = NO_SUMS
    """Ratings and judgements, in [0, 1]."""
    success: Sums = NO_SUMS
    """1 for a complete response, 0 where the experts failed."""
    cost_usd: Sums = NO_SUMS
    latency_s: Sums = NO_SUMS

    def plus(self, measure: str, value: float) -> Self:
        """The sums with one more value.

        Raises:
            InputError: the value is not finite.
        """
        sums: Sums = getattr(self, measure)
        return replace(self, **{measure: sums.plus(value)})

    def __add__(self, other: "ArmSums") -> "ArmSums":
        return ArmSums(
            **{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        )

    @property
    def values(self) -> int:
        """Number of all values: it only grows, so the larger of two reports is the later one."""
        return sum(getattr(self, one.name).n for one in fields(self))

    def as_json(self) -> dict[str, list[float]]:
        return {one.name: _numbers(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The sums that `as_json` wrote.

        Raises:
            ValueError: a measure is missing or has other numbers.
        """
        try:
            found = {one.name: _sums(data[one.name]) for one in fields(cls)}
        except (LookupError, TypeError) as error:
            raise ValueError(f"sums of an arm are damaged: {error!r}") from error
        return cls(**found)


NO_VALUES = ArmSums()


@dataclass(frozen=True, slots=True)
class Standing:
    """Canary less control in each measure."""

    quality: Comparison
    success: Comparison
    cost_usd: Comparison
    latency_s: Comparison

    @property
    def verdict(self) -> Verdict:
        """Worse by quality or by success ends a canary; better needs quality, and no loss of success."""
        if "worse" in {self.quality.verdict, self.success.verdict}:
            return "worse"
        return self.quality.verdict

    @property
    def sentence(self) -> str:
        """The verdict in plain words."""
        worse_by = "success" if self.success.verdict == "worse" else "quality"
        found: Comparison = getattr(self, worse_by)
        if found.difference is None or found.lower is None or found.upper is None:
            return "no values of both arms yet"
        points, low, high = (100 * number for number in (found.difference, found.lower, found.upper))
        return (
            f"{worse_by} {points:+.1f} points ({low:+.1f} to {high:+.1f}) after {found.canary.n} values of "
            f"the canary and {found.control.n} of the policy in effect"
        )


def standing(canary: ArmSums, control: ArmSums) -> Standing:
    """Compare two arms; may be looked at after every value."""
    found = {
        one.name: _compared(one.name, getattr(canary, one.name), getattr(control, one.name))
        for one in fields(ArmSums)
    }
    return Standing(**found)


def canary_id(policy_id: str, canary_policy_id: str, share: float, until: str) -> str:
    """Id of a canary: another one as soon as a policy, the share or the end is another."""
    text = "\0".join((policy_id, canary_policy_id, repr(share), until))
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def arm_name(canary: str, unit: str, share: float) -> ArmName:
    """The arm of a unit: the same on every replica, and for as long as the canary runs."""
    return "canary" if uniform(0, unit, f"canary {canary}") < share else "control"


def _compared(measure: str, canary: Sums, control: Sums) -> Comparison:
    if measure in {"quality", "success"}:
        return compare(canary, control, alpha=ALPHA[measure])
    # Costs and times have no bounds: their own size is the span. Higher is worse, so signs change.
    span = max(canary.mean if canary.n else 0.0, control.mean if control.n else 0.0)
    if not 0 < span < math.inf:
        return Comparison(canary, control, None, None, None, "undecided")
    found = compare(canary, control, alpha=ALPHA[measure], span=span)
    turned: dict[Verdict, Verdict] = {"worse": "better", "better": "worse", "undecided": "undecided"}
    return replace(found, verdict=turned[found.verdict])


def _numbers(sums: Sums) -> list[float]:
    return [sums.n, sums.total, sums.squares]


def _sums(numbers: Any) -> Sums:
    n, total, squares = numbers
    return Sums(int(n), float(total), float(squares))
