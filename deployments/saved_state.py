"""State of an actor in a file: read when the actor starts, and written while the state changes.

A file that cannot be read is kept under another name. Knows neither Ray nor what the state is.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from router.files import write_atomically

logger = logging.getLogger("ray.serve")

MOST_OF_LOOP = 0.05
"""Share of the event loop's time that making the JSON may take: a large state is written less often."""


class SavedState:
    """One file.

    Args:
        file: its path; on a cluster of several machines, in a shared folder.
        what: the state, for the log.
        without: what follows where the file cannot be read, for the log.
        restore: takes over what was read; raises ValueError where it cannot.
        snapshot: returns the state as JSON values.
        pause_s: seconds between two writes, at least.
    """

    def __init__(
        self,
        file: str,
        *,
        what: str,
        without: str,
        restore: Callable[[Any], None],
        snapshot: Callable[[], Any],
        pause_s: float,
    ) -> None:
        self._path, self._what, self._without = Path(file), what, without
        self._restore, self._snapshot, self._pause_s = restore, snapshot, pause_s
        self._is_changed = False
        self._took_s = 0.0
        self._writer: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        """Held from the snapshot to the end of its write, so that no older state overtakes a newer one."""

    def read(self) -> None:
        """Restore the state, where there is a file of it. Blocks."""
        try:
            self._restore(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            kept = self._path.with_name(f"{self._path.name}.broken")
            logger.error(
                "%s in %s cannot be read: %s; the file is kept as %s: %s",
                self._what, self._path, self._without, kept.name, error,
            )  # fmt: skip
            with contextlib.suppress(OSError):
                self._path.replace(kept)

    def changed(self) -> None:
        """Note a change, to be written soon; the first one begins the writes."""
        self._is_changed = True
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._keep_writing())

    async def write(self) -> None:
        """Write the state now; a failure is logged and not raised, and the next pause tries again."""
        async with self._writing:
            self._is_changed = False
            began = time.perf_counter()
            try:
                state = orjson.dumps(self._snapshot())
                self._took_s = time.perf_counter() - began
                await asyncio.to_thread(write_atomically, self._path, state, durable=True)
            except OSError as error:
                self._is_changed = True
                logger.error("%s not written to %s: %s", self._what, self._path, error)
            except Exception:  # of whatever makes the state: the writes of later changes go on
                logger.exception("%s not written to %s", self._what, self._path)

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(max(self._pause_s, self._took_s / MOST_OF_LOOP))
            if self._is_changed:
                await self.write()
