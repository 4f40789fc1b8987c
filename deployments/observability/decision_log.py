"""Decision log: JSON lines in rotating files, written by a thread of its own, bounded on disk.

`write` never waits: a full queue drops the record and counts it, a full disk drops what it cannot hold
and counts that. Text that people wrote is kept only where `log.queries` says so.
"""

import contextlib
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import orjson

from deployments.config import LogSettings
from deployments.observability import metrics
from deployments.settings import resolve
from router.learning.log import PREFIX, RATINGS, SHADOWS, SUFFIX, files_of
from router.learning.record import DecisionRecord, FeedbackRecord, Record, ShadowRecord, to_json

logger = logging.getLogger("ray.serve")

RATINGS_SHARE = 1 / 8
"""Share of the disk space for ratings: files of their own, so that many of them displace no decision."""
REQUESTS: Mapping[type[Record], tuple[str, float]] = {
    DecisionRecord: (PREFIX, 1 - RATINGS_SHARE),
    FeedbackRecord: (RATINGS, RATINGS_SHARE),
}
"""What an ingress replica writes: kind of record → prefix of its files, and their share of the disk space."""
SHADOW: Mapping[type[Record], tuple[str, float]] = {ShadowRecord: (SHADOWS, 1.0)}
"""What a router replica writes."""
PARTS = 16
"""Files that share the disk space, and the days, of one writer; the oldest is deleted first."""
MOST_AT_ONCE = 1000
TIDY_S = 60.0
"""Interval of deleting old files while nothing is written."""
MIB = 1024 * 1024


class DecisionLog:
    """One replica's part of the decision log.

    Args:
        replica: part of the files' names, so that replicas on one machine do not share a file.
        now: seconds since 1970.
        kinds: kind of record → prefix of its files, and their share of the disk space.
    """

    def __init__(
        self,
        settings: LogSettings,
        replica: str,
        now: Callable[[], float] = time.time,
        kinds: Mapping[type[Record], tuple[str, float]] = REQUESTS,
    ) -> None:
        self.settings = settings
        folder = resolve(settings.folder)
        self._files = {
            kind: LogFiles(folder, replica, settings, now, prefix=prefix, share=share)
            for kind, (prefix, share) in kinds.items()
        }
        self._queue: queue.Queue[Record | None] = queue.Queue(settings.max_queued)
        self._thread = threading.Thread(target=self._run, name="decision-log", daemon=True)
        self._failing = False

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def write(self, record: Record) -> None:
        """Queue a record; never waits, never fails."""
        # Texts are dropped before the queue: thousands of them would take up memory.
        kept = record if self.settings.queries else record.without_texts()
        try:
            self._queue.put_nowait(kept)
        except queue.Full:
            metrics.log_records.labels("dropped").inc()

    def stop(self, wait_s: float = 5.0) -> None:
        """Write what is queued within `wait_s`, and end."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=wait_s)
        self._thread.join(wait_s)

    def _run(self) -> None:
        more = True
        while more:
            batch, more = self._next()
            try:
                for kind, files in self._files.items():
                    if lines := [self._line(record) for record in batch if isinstance(record, kind)]:
                        files.append(b"".join(lines))
                    elif not batch:
                        files.tidy()
            except OSError as error:
                metrics.log_records.labels("failed").inc(len(batch))
                if not self._failing:
                    logger.error("decision log: records are lost until this is repaired: %s", error)
                self._failing = True
            else:
                metrics.log_records.labels("written").inc(len(batch))
                if self._failing and batch:
                    logger.info("decision log: writing again")
                    self._failing = False
        for files in self._files.values():
            files.close()

    def _line(self, record: Record) -> bytes:
        """A record as a line; one that cannot be written becomes a line that says so."""
        try:
            return orjson.dumps(to_json(record, with_texts=self.settings.queries), default=str) + b"\n"
        except orjson.JSONEncodeError as error:
            logger.error("decision log: a record cannot be written: %s", error)
            return orjson.dumps({"type": "unwritable", "why": str(error)}) + b"\n"

    def _next(self) -> tuple[list[Record], bool]:
        """The queued records, after a minute an empty list; false when it is the end."""
        batch: list[Record] = []
        try:
            record = self._queue.get(timeout=TIDY_S)
            while True:
                if record is None:
                    return batch, False
                batch.append(record)
                if len(batch) >= MOST_AT_ONCE:
                    break
                record = self._queue.get_nowait()
        except queue.Empty:
            pass
        return batch, True


class ConfiguredLog:
    """The decision log as the configuration in effect has it; without one, records are dropped.

    Args:
        replica: returns the name of this replica, once a log is needed.
    """

    def __init__(self, replica: Callable[[], str]) -> None:
        self._replica = replica
        self._log: DecisionLog | None = None

    @property
    def settings(self) -> LogSettings | None:
        """The settings in effect; `None` while no log is kept."""
        return None if self._log is None else self._log.settings

    @property
    def active(self) -> bool:
        """Whether a log is kept."""
        return self._log is not None

    def write(self, record: Record) -> None:
        """Queue a record; never waits, never fails."""
        if self._log is not None:
            self._log.write(record)

    def apply(self, settings: LogSettings | None) -> "DecisionLog | None":
        """Put settings into effect; returns the log that they replace, for the caller to `stop`."""
        if settings == self.settings:
            return None
        old, self._log = self._log, None
        if settings is not None:
            self._log = DecisionLog(settings, self._replica())
            self._log.start()
        return old

    def stop(self, wait_s: float) -> None:
        """Write what is queued within `wait_s`."""
        if self._log is not None:
            self._log.stop(wait_s)


class LogFiles:
    """The files of one replica and one kind, and the disk space that all such files of the folder share."""

    def __init__(
        self,
        folder: Path,
        replica: str,
        settings: LogSettings,
        now: Callable[[], float] = time.time,
        *,
        prefix: str = PREFIX,
        share: float = 1.0,
    ) -> None:
        self._folder, self._now, self._prefix = folder, now, prefix
        self._replica = re.sub(r"[^A-Za-z0-9]+", "-", replica)
        self._most_bytes = int(settings.max_mib * MIB * share)
        self._keep_s = settings.keep_days * 86_400
        self._descriptor: int | None = None
        self._path: Path | None = None
        self._size = 0
        self._opened_at = 0.0

    def append(self, lines: bytes) -> None:
        """Write whole lines, all or none.

        Raises:
            OSError: the disk is full, or the folder cannot be written; nothing half stays behind.
        """
        if self._path is not None and (
            self._size >= self._most_bytes // PARTS
            or self._now() - self._opened_at >= self._keep_s / PARTS
            or not self._is_in_place()
        ):
            self.close()
        if self._descriptor is None:
            self._open()
        descriptor = self._descriptor
        if descriptor is None:
            raise OSError("the file is not open")
        try:
            left = memoryview(lines)
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, self._size)
            self.tidy()
            raise
        self._size += len(lines)

    def _is_in_place(self) -> bool:
        """Whether the open file is still the one of its name: records may be deleted from outside."""
        if self._descriptor is None or self._path is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def tidy(self) -> None:
        """Delete what is too old, then the oldest until the folder keeps its bound."""
        files = sorted(_sizes(self._folder, self._prefix))
        left_bytes = self._most_bytes - sum(size for _, size, _ in files)
        for changed, size, file in files:
            too_old = changed < self._now() - self._keep_s
            if file == self._path and too_old:
                self.close()
            if file != self._path and (left_bytes < 0 or too_old):
                file.unlink(missing_ok=True)
                left_bytes += size

    def close(self) -> None:
        """Close the current file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = self._path = None

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.tidy()
        at = datetime.fromtimestamp(self._now(), UTC).strftime("%Y%m%dT%H%M%S%f")
        path = self._folder / f"{self._prefix}{at}-{self._replica}{SUFFIX}"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._path, self._size, self._opened_at = path, os.fstat(self._descriptor).st_size, self._now()


def _sizes(folder: Path, prefix: str) -> Iterator[tuple[float, int, Path]]:
    """When each file was changed last, its bytes and its path."""
    for file in files_of(folder, prefix):
        # Another replica may have deleted it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            yield status.st_mtime, status.st_size, file
