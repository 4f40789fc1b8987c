"""Counters of the whole application over time, for Board: summed over replicas, bounded in memory.

Each series is subtracted from itself before any sum, so a replica that starts, stops or restarts never
decreases a total. Pure: metrics text and times in, totals out.
"""

import itertools
import re
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

FINE_S = 10.0
"""Spacing of the recent points; the older ones are further apart."""
FINE_POINTS = 60
COARSE_POINTS = 180
"""Points before the recent ones: when there are more, every second one is dropped."""
MAX_SERIES = 2_000
"""Series that are kept; further ones are left out."""
FORGOTTEN_AFTER_S = 600.0
"""A series of one replica that no text had for so long counts from zero when it is back."""
_REPLICA = re.compile(rb'(?<=[{,])replica="(?:[^"\\]|\\.)*",?')


@dataclass(slots=True)
class _Series:
    """One line of the metrics: its position among the totals, and its value when it was last seen."""

    index: int
    value: float
    seen_at: float


@dataclass(frozen=True, slots=True)
class _Point:
    at: float
    totals: "array[float]"


class History:
    """Totals since the first text, at points in time.

    Args:
        kept: whether a line of the metrics belongs to the history; gauges do not.
    """

    def __init__(self, kept: Callable[[bytes], bool]) -> None:
        self._kept = kept
        self._lines: dict[bytes, _Series] = {}
        self._names: dict[bytes, int] = {}
        self._totals = array("d")
        self._coarse: list[_Point] = []
        self._fine: list[_Point] = []
        self._spacing_s = FINE_S
        self._latest: _Point | None = None

    def add(self, lines: Iterable[bytes], at: float) -> None:
        """Add a text of the whole application; what the first one holds is the start, and counts as zero."""
        first = self._latest is None
        for line in lines:
            if self._kept(line):
                self._count(line, at, first)
        for name in [name for name, one in self._lines.items() if at - one.seen_at > FORGOTTEN_AFTER_S]:
            del self._lines[name]
        self._latest = _Point(at, array("d", self._totals))
        if not self._fine or at - self._fine[-1].at >= FINE_S:
            self._fine.append(self._latest)
        if len(self._fine) > FINE_POINTS:
            self._move(self._fine.pop(0))

    def view(self) -> dict[str, object]:
        """The times of the points, and for each series its growth from point to point."""
        points = [*self._coarse, *self._fine]
        if self._latest is not None and (not points or points[-1].at < self._latest.at):
            points.append(self._latest)
        series = {}
        for name, index in self._names.items():
            totals = [point.totals[index] if index < len(point.totals) else 0.0 for point in points]
            if totals and totals[-1] > 0:
                steps = itertools.pairwise(totals)
                series[name.decode("utf-8", "replace")] = [
                    round(after - before, 9) for before, after in steps
                ]
        return {"at": [round(point.at, 3) for point in points], "series": series}

    def _count(self, line: bytes, at: float, first: bool) -> None:
        identity, _, text = line.rpartition(b" ")
        try:
            value = float(text)
        except ValueError:
            return
        one = self._lines.get(identity)
        if one is None:
            index = self._index(identity)
            if index is None:
                return
            self._lines[identity] = one = _Series(index, value if first else 0.0, at)
        self._totals[one.index] += value - one.value if value >= one.value else value
        one.value, one.seen_at = value, at

    def _index(self, identity: bytes) -> int | None:
        name = _REPLICA.sub(b"", identity).replace(b",}", b"}")
        if name not in self._names:
            if len(self._names) >= MAX_SERIES:
                return None
            self._names[name] = len(self._totals)
            self._totals.append(0.0)
        return self._names[name]

    def _move(self, point: _Point) -> None:
        """To the older points; the first one, the start, is always kept."""
        if self._coarse and point.at - self._coarse[-1].at < self._spacing_s - FINE_S / 2:
            return
        self._coarse.append(point)
        if len(self._coarse) > COARSE_POINTS:
            self._coarse = self._coarse[::2]
            self._spacing_s *= 2
