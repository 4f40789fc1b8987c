"""Seconds since 1970 that neither jump nor run backwards while the process lives."""

import time
from collections.abc import Callable


class SteadyClock:
    """The time of day at the start, and from then on monotonic time.

    A clock that is set back an hour would keep a key at its limit rejected for that hour.

    Args:
        now: seconds since 1970, read once.
        monotonic: monotonic seconds.
    """

    def __init__(
        self, now: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        self._offset_s = now() - monotonic()

    def __call__(self) -> float:
        return self._offset_s + self._monotonic()
