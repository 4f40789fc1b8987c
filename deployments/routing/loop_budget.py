"""Whether work is short enough for the event loop.

A hop to a thread and back takes longer than a short batch, and the thread then holds the interpreter for up
to 5 ms at a time: the event loop waits longer for it than if it had done the work itself.
"""

from collections import deque
from collections.abc import Sequence
from statistics import median

LONGEST_S = 0.002
"""Work on the event loop, between two turns of it."""
CHARACTERS = 200
"""A text of so many characters takes about as long as what is done for each text."""
REMEMBERED = 5
"""Times of each size; their median counts, so that one long one among them, such as the first, does not."""
PROBE_EVERY = 64
"""Of so many batches that were too long for the event loop, the first text of one is tried there again."""


class LoopBudget:
    """Learns how long batches of texts take on the event loop, by their size.

    Args:
        longest_s: the longest work on the event loop.
    """

    def __init__(self, longest_s: float = LONGEST_S) -> None:
        self._longest_s = longest_s
        self._seconds: dict[int, deque[float]] = {}
        """Seconds by size."""
        self._too_long = 0

    def measured(self, lengths: Sequence[int], seconds: float) -> None:
        """Learn from a batch on the event loop, of texts with these lengths in characters.

        `seconds` are those of a processor: on a busy machine everything takes long.
        """
        self._seconds.setdefault(_size(lengths), deque(maxlen=REMEMBERED)).append(seconds)

    def fits(self, lengths: Sequence[int]) -> int:
        """How many of these texts, from the first, are short enough together; 0 where not even one is.

        The first text of all is tried.
        """
        if not self._seconds:
            return min(1, len(lengths))
        count = len(lengths)
        while count and self._expected_s(_size(lengths[:count])) > self._longest_s:
            count //= 2
        if count == 0:
            self._too_long += 1
            count = int(self._too_long % PROBE_EVERY == 0)
        return count

    def _expected_s(self, size: int) -> float:
        # Twice as much takes at most twice as long.
        return min(median(times) * 2.0 ** max(0, size - known) for known, times in self._seconds.items())


def _size(lengths: Sequence[int]) -> int:
    """The size of a batch of texts, as a power of two."""
    return (len(lengths) + sum(lengths) // CHARACTERS).bit_length()
