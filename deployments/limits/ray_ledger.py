"""The common ledger as one Ray actor, and the ingress' connection to it.

Detached: it outlives the replicas and a redeploy. Its counts are written to a file twice a second,
so that a killed ledger restarts with at most a second missing.
"""

from typing import Any

from deployments.limits.ledger import Ledger
from deployments.limits.messages import SyncRequest, SyncResponse
from deployments.limits.steady_clock import SteadyClock
from deployments.named_actor import NamedActor, actor_name
from deployments.saved_state import SavedState

NAME = "to-router-ledger-4"
"""Raised whenever the pickled messages change: an actor of an earlier version outlives a deploy, and cannot
read them. Its counts reach the new actor through the file."""
SNAPSHOT_S = 0.5


class LedgerActor:
    """Counts for all ingress replicas.

    Args:
        snapshot: the file of the counts; on a cluster of several machines, in a shared folder.
    """

    def __init__(self, snapshot: str) -> None:
        self._ledger = Ledger(SteadyClock())
        self._saved = SavedState(
            snapshot,
            what="the counts of keys",
            without="budgets and windows begin at zero",
            restore=self._ledger.restore,
            snapshot=self._pruned,
            pause_s=SNAPSHOT_S,
        )
        self._saved.read()

    async def sync(self, call: SyncRequest) -> SyncResponse:
        """See `Ledger.sync`."""
        self._saved.changed()
        return self._ledger.sync(call)

    def _pruned(self) -> dict[str, Any]:
        self._ledger.prune()
        return self._ledger.snapshot()


class LedgerHandle:
    """Connection to the common ledger, which starts with the first call.

    Args:
        snapshot: the file of the counts.
    """

    def __init__(self, snapshot: str) -> None:
        self._actor = NamedActor(LedgerActor, actor_name(NAME, snapshot), snapshot)

    async def sync(self, call: SyncRequest, timeout_s: float) -> SyncResponse:
        """Make one call; see `LedgerTransport.sync`."""
        response: SyncResponse = await self._actor.call("sync", call, timeout_s)
        return response
