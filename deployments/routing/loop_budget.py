"""Whether a batch is short enough for the event loop.

A hop to a thread and back takes longer than a short batch, and the thread then holds the interpreter for up
to 5 ms at a time: the event loop waits longer for it than if it had done the work itself. A batch goes as a
whole: in parts it would pay several times for what each pass costs, however few are in it.
"""

from collections import deque
from collections.abc import Sequence
from statistics import median

LONGEST_S = 0.01
"""Work on the event loop, between two turns of it: a full batch of short queries takes about that."""
CHARACTERS = 200
"""A text of so many characters takes about as long as what is done for each text."""
REMEMBERED = 5
"""Times of each size; their median counts, so that one long one among them, such as the first, does not."""


class LoopBudget:
    """Learns how long batches of texts take, by their size.

    Args:
        longest_s: the longest work on the event loop.
    """

    def __init__(self, longest_s: float = LONGEST_S) -> None:
        self._longest_s = longest_s
        self._seconds: dict[int, deque[float]] = {}
        """Seconds by size."""

    def measured(self, lengths: Sequence[int], seconds: float) -> None:
        """Learn from a batch, on the event loop or not, of texts with these lengths in characters."""
        self._seconds.setdefault(_size(lengths), deque(maxlen=REMEMBERED)).append(seconds)

    def fits(self, lengths: Sequence[int]) -> bool:
        """Whether these texts are short enough together; before any batch one text is."""
        if not self._seconds:
            return len(lengths) == 1
        return self._expected_s(_size(lengths)) <= self._longest_s

    def _expected_s(self, size: int) -> float:
        if size in self._seconds:
            return median(self._seconds[size])
        # Twice as much takes at most twice as long.
        return min(median(times) * 2.0 ** max(0, size - known) for known, times in self._seconds.items())


def _size(lengths: Sequence[int]) -> int:
    """The size of a batch of texts, as a power of two."""
    return (len(lengths) + sum(lengths) // CHARACTERS).bit_length()
