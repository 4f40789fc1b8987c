"""Always-valid comparison of two arms: it may be looked at after every request, and stopped at any time.

Confidence sequences by the normal mixture (Robbins 1970; Howard et al. 2021), with estimated variances
(asymptotic: Waudby-Smith et al. 2021). Counts and sums in, bounds out; knows nothing of requests.
"""

import math
from dataclasses import dataclass
from typing import Literal

from router.errors import InputError

LEAST_VALUES = 50
"""Values of each arm before any verdict: below, an estimated variance says too little."""
TUNED_AT = 150
"""Values of the smaller arm at which the bounds are tightest."""

Verdict = Literal["worse", "better", "undecided"]


@dataclass(frozen=True, slots=True)
class Sums:
    """One arm's values, as their number and sums; those of several replicas add up in any order."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def plus(self, value: float) -> "Sums":
        """The sums with one more value.

        Raises:
            InputError: the value is not finite.
        """
        if not math.isfinite(value):
            raise InputError(f"a value of an arm must be finite, found {value!r}")
        return Sums(self.n + 1, self.total + value, self.squares + value * value)

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.n + other.n, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        return self.total / self.n if self.n else math.nan

    def variance(self, span: float = 1.0) -> float:
        """Variance of the values, with two values `span` apart added: it is never 0."""
        if not self.n:
            return math.inf
        spread = max(0.0, self.squares - self.total * self.total / self.n)
        return (spread + span * span / 2) / (self.n + 1)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Canary less control, at any time."""

    canary: Sums
    control: Sums
    difference: float | None
    """`None` until both arms have a value."""
    lower: float | None
    """Bound below which the true difference never lies, at any time, with probability 1 − alpha."""
    upper: float | None
    verdict: Verdict
    """Whether all of the interval is on one side of 0."""


def compare(
    canary: Sums, control: Sums, *, alpha: float = 0.05, span: float = 1.0, tuned_at: int = TUNED_AT
) -> Comparison:
    """Compare two arms; higher values are better.

    Args:
        canary: of the new policy.
        control: of the policy in effect.
        alpha: probability that the true difference is ever below `lower`, and likewise above `upper`.
        span: width of the range of values, 1 for quality.
        tuned_at: values of the smaller arm at which the interval is tightest relative to its length.

    Raises:
        InputError: `alpha` is outside (0, 0.5), or `span` is not above 0.
    """
    if not 0 < alpha < 0.5:
        raise InputError(f"alpha must be in (0, 0.5), found {alpha!r}")
    if not 0 < span < math.inf:
        raise InputError(f"span must be above 0, found {span!r}")
    if not canary.n or not control.n:
        return Comparison(canary, control, None, None, None, "undecided")
    difference = canary.mean - control.mean
    # The larger variance for both: a lucky start of one arm has a variance that is too small as well.
    variance = max(canary.variance(span), control.variance(span))
    information = 1 / (variance / canary.n + variance / control.n)
    radius = _radius(information, alpha, tuned_at / variance)
    lower, upper = difference - radius, difference + radius
    verdict: Verdict = "undecided"
    if min(canary.n, control.n) >= LEAST_VALUES:
        verdict = "worse" if upper < 0 else "better" if lower > 0 else "undecided"
    return Comparison(canary, control, difference, lower, upper, verdict)


def _radius(information: float, alpha: float, tuned_at: float) -> float:
    """Half of the width: a one-sided normal mixture on a Brownian motion with this information.

    `tuned_at` is the information at which the bound is tightest. The mixture's own precision is
    a fraction of it that depends on alpha (Howard et al. 2021, section 3.5).
    """
    precision = tuned_at / (2 * math.log(1 / (2 * alpha)) + math.log(1 + 2 * math.log(1 / (2 * alpha))) + 1)
    total = information + precision
    return math.sqrt(total * math.log(1 + total / (4 * precision * alpha * alpha))) / information
