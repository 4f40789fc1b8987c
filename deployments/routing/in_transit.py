"""Decisions on their way back to an ingress: load that no ingress can have reported yet.

Of this router replica alone; a plain class with a clock passed in.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping

from router.core import Decision

TRANSIT_S = 0.01
"""A decision is back, and its request in flight at the expert, within about this time."""
MOST = 1024
"""Decisions that are counted at most."""


class InTransit:
    """Counts the last decisions by expert.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._made: deque[tuple[float, str]] = deque(maxlen=MOST)

    def counts(self) -> Mapping[str, float]:
        """Expert → requests that were sent to it just now."""
        since = self._clock() - TRANSIT_S
        while self._made and self._made[0][0] < since:
            self._made.popleft()
        return Counter(expert for _, expert in self._made)

    def add(self, decisions: Iterable[Decision]) -> None:
        """Count decisions that are sent back now."""
        now = self._clock()
        for decision in decisions:
            if not decision.ranking:
                continue
            first = decision.candidate
            called = decision.plans[first].ask if first in decision.plans else (first,)
            self._made.extend((now, expert) for expert in called)
