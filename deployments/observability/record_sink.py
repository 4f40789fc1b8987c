"""What takes the records of requests and ratings: the decision log, or nothing."""

from typing import Protocol

from router.learning.record import Record


class RecordSink(Protocol):
    """Takes records; never blocks."""

    @property
    def active(self) -> bool:
        """Whether records are kept, so that making them is worth it."""
        ...

    def write(self, record: Record) -> None:
        """Keep a record, or drop and count it."""
        ...


class NoRecords:
    """A sink that drops all records."""

    active = False

    def write(self, record: Record) -> None:
        """Drop it."""
