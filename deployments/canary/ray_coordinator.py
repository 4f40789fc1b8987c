"""The coordinator of canaries as one Ray actor, and a replica's connection to it.

Its state is written to a file: a rollback before any replica learns of it, sums once a second.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

import orjson

from deployments.canary.coordinator import Coordinator
from deployments.canary.messages import CanaryCall, CanaryStanding
from deployments.named_actor import NamedActor, actor_name
from router.files import write_atomically

logger = logging.getLogger("ray.serve")

NAME = "to-router-canaries-1"
"""Raised whenever the pickled messages change: an actor of an earlier version outlives a deploy."""
SNAPSHOT_S = 1.0


class CoordinatorActor:
    """Canaries of all replicas.

    Args:
        snapshot: the file of the state; on a cluster of several machines, in a shared folder.
    """

    def __init__(self, snapshot: str) -> None:
        self._path = Path(snapshot)
        self._coordinator = Coordinator(time.time)
        self._changed = False
        self._saver: asyncio.Task[None] | None = None
        self._restore()

    async def sync(self, call: CanaryCall) -> Mapping[str, CanaryStanding]:
        """See `Coordinator.sync`; a new rollback is on disk before it is returned."""
        if self._saver is None:
            self._saver = asyncio.create_task(self._keep_saving())
        before = self._coordinator.rolled_back
        found = self._coordinator.sync(call)
        self._changed = self._changed or bool(call.measured)
        if new := self._coordinator.rolled_back - before:
            logger.error("canary rolled back: %s", ", ".join(sorted(new)))
            await self._save()
        return found

    def _restore(self) -> None:
        try:
            self._coordinator.restore(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            logger.error("state of canaries in %s not read, replicas report again: %s", self._path, error)
            with contextlib.suppress(OSError):
                self._path.replace(self._path.with_name(f"{self._path.name}.broken"))

    async def _keep_saving(self) -> None:
        while True:
            await asyncio.sleep(SNAPSHOT_S)
            if self._changed:
                self._changed = False
                await self._save()

    async def _save(self) -> None:
        state = orjson.dumps(self._coordinator.snapshot())
        try:
            await asyncio.to_thread(write_atomically, self._path, state, durable=True)
        except OSError as error:
            logger.error("state of canaries not written to %s: %s", self._path, error)


class CoordinatorHandle:
    """Connection to the coordinator, which starts with the first call.

    Args:
        snapshot: the file of its state.
    """

    def __init__(self, snapshot: str) -> None:
        self._actor = NamedActor(CoordinatorActor, actor_name(NAME, snapshot), snapshot)

    async def sync(self, call: CanaryCall, timeout_s: float) -> Mapping[str, CanaryStanding]:
        """Make one call; see `CanaryTransport.sync`."""
        found: Mapping[str, CanaryStanding] = await self._actor.call("sync", call, timeout_s)
        return found
