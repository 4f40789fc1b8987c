"""A line through what is observed, learnt one observation at a time; old ones fade.

Recursive least squares with forgetting. Pure Python: a few numbers each time.
"""

from collections.abc import Sequence

FORGETTING = 0.98
"""Weight of each observation relative to the next: about fifty count."""
UNCERTAIN = 100.0
"""Variance of a coefficient before anything is known, and the most that forgetting restores."""
OUTLIER = 5.0
"""An observation so many mean deviations away is moved nearer: one stall shall not turn the line."""
CERTAIN_AFTER = 8
"""Observations before one can be an outlier."""


class OnlineLine:
    """y ≈ a₀ + a₁ x₁ + …, with no coefficient below 0.

    Args:
        scales: typical size of each x, so that all count alike.
    """

    def __init__(self, *scales: float) -> None:
        self._scales = (1.0, *scales)
        self._weights = [0.0] * len(self._scales)
        self._variance: list[list[float]] = []
        self.loosen()
        self._deviation = 0.0
        self.count = 0

    @property
    def coefficients(self) -> tuple[float, ...]:
        """The constant, then a factor for each x."""
        return tuple(
            max(0.0, weight) / scale for weight, scale in zip(self._weights, self._scales, strict=True)
        )

    def at(self, *x: float) -> float:
        """The line's value, at least 0."""
        return sum(a * value for a, value in zip(self.coefficients, (1.0, *x), strict=True))

    def loosen(self) -> None:
        """Let the next observations turn the line as if there were none before."""
        size = range(len(self._weights))
        self._variance = [[UNCERTAIN if i == j else 0.0 for j in size] for i in size]

    def observe(self, y: float, x: Sequence[float]) -> None:
        """Learn from one observation."""
        scaled = [value / scale for value, scale in zip((1.0, *x), self._scales, strict=True)]
        error = y - sum(weight * value for weight, value in zip(self._weights, scaled, strict=True))
        self.count += 1
        if self.count > CERTAIN_AFTER:
            most = OUTLIER * max(self._deviation, 1e-6)
            self._deviation += 0.1 * (min(abs(error), 2 * most) - self._deviation)
            error = max(-most, min(most, error))
        else:
            self._deviation += (abs(error) - self._deviation) / self.count
        spread = [sum(a * b for a, b in zip(row, scaled, strict=True)) for row in self._variance]
        total = FORGETTING + sum(a * b for a, b in zip(scaled, spread, strict=True))
        gain = [value / total for value in spread]
        self._weights = [w + g * error for w, g in zip(self._weights, gain, strict=True)]
        size = range(len(scaled))
        updated = [[(self._variance[i][j] - gain[i] * spread[j]) / FORGETTING for j in size] for i in size]
        if all(updated[i][i] <= UNCERTAIN for i in size):
            self._variance = updated
