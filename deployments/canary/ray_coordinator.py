"""The coordinator of canaries as one Ray actor, and a replica's connection to it.

Its state is written to a file: a rollback before any replica learns of it, sums once a second.
"""

import logging
import time
from collections.abc import Mapping

from deployments.canary.coordinator import Coordinator
from deployments.canary.messages import CanaryCall, CanaryStanding
from deployments.named_actor import NamedActor, actor_name
from deployments.saved_state import SavedState

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
        self._coordinator = Coordinator(time.time)
        self._saved = SavedState(
            snapshot,
            what="the state of canaries",
            without="replicas report again",
            restore=self._coordinator.restore,
            snapshot=self._coordinator.snapshot,
            pause_s=SNAPSHOT_S,
        )
        self._saved.read()

    async def sync(self, call: CanaryCall) -> Mapping[str, CanaryStanding]:
        """See `Coordinator.sync`; a new rollback is on disk before it is returned."""
        before = self._coordinator.rolled_back
        found = self._coordinator.sync(call)
        if call.measured:
            self._saved.changed()
        if new := self._coordinator.rolled_back - before:
            logger.error("canary rolled back: %s", ", ".join(sorted(new)))
            await self._saved.write()
        return found


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
