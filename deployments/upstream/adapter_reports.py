"""What the replicas of one application reported of its adapters lately, and when to read the next report.

A read reaches any one of the replicas, so one report alone says nothing of the others. Pure: a clock is
passed in, and discovery reads.
"""

import time
from collections.abc import Callable, Iterable, Mapping

RARELY_S = 30.0
"""Between two reads where nothing changes: to Serve's autoscaler each is demand, which delays a stop."""
RECENT_S = 3 * RARELY_S
"""A replica that was last read before then does not count."""
ABSENT = "the application has no such adapter"

Seen = tuple[str, int | None]
"""Phase of an application and its number of running replicas."""


class AdapterReports:
    """The last report of each replica.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, tuple[float, Mapping[str, object]]] = {}
        """Replica → when it reported, and adapter → why it is not loaded; the newest last."""
        self._seen: Seen | None = None

    def add(self, replica: str, adapters: Mapping[str, object], seen: Seen) -> None:
        """Keep a report.

        Args:
            replica: identifies the replica's process.
            adapters: each adapter with the reason why it is not loaded.
            seen: of the application, when the report was requested.
        """
        self._last.pop(replica, None)
        self._last[replica] = (self._clock(), adapters)
        self._seen = seen
        oldest = self._clock() - RECENT_S
        self._last = {name: report for name, report in self._last.items() if report[0] > oldest}

    def reasons(self, adapter: str, running: int | None) -> list[str | None]:
        """Why each replica does not have an adapter, `None` where it has it; the newest report last.

        Args:
            adapter: its name.
            running: the number of replicas; reports of more of them are of ended ones.
        """
        oldest = self._clock() - RECENT_S
        recent = [adapters for at_s, adapters in self._last.values() if at_s > oldest]
        found = [adapters.get(adapter, ABSENT) for adapters in recent[-max(1, running or 1) :]]
        return [None if why is None else str(why) for why in found]

    def is_due(self, adapters: Iterable[str], seen: Seen) -> bool:
        """Whether to read another report: after a change, while an adapter is missing, and rarely.

        Args:
            adapters: those that experts use.
            seen: of the application, now.
        """
        if not self._last or seen != self._seen:
            return True
        if any(why is not None for name in adapters for why in self.reasons(name, seen[1])):
            return True
        return self._clock() - max(at_s for at_s, _ in self._last.values()) >= RARELY_S
