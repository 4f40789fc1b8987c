"""The common ledger as one Ray actor, and the ingress' connection to it.

Detached: it outlives the replicas and a redeploy. Its counts are written to a file twice a second,
so that a killed ledger restarts with at most a second missing.
"""

import asyncio
import contextlib
import json
import logging
import time
from pathlib import Path

import orjson

from deployments.limits.ledger import Ledger
from deployments.limits.messages import SyncRequest, SyncResponse
from deployments.limits.steady_clock import SteadyClock
from deployments.named_actor import NamedActor, actor_name
from router.files import write_atomically

logger = logging.getLogger("ray.serve")

NAME = "to-router-ledger-4"
"""Raised whenever the pickled messages change: an actor of an earlier version outlives a deploy, and cannot
read them. Its counts reach the new actor through the file."""
SNAPSHOT_S = 0.5
MOST_OF_LOOP = 0.05
"""Share of the event loop's time that snapshots may take: with thousands of busy keys they are fewer."""


class LedgerActor:
    """Counts for all ingress replicas.

    Args:
        snapshot: the file of the counts; on a cluster of several machines, in a shared folder.
    """

    def __init__(self, snapshot: str) -> None:
        self._path = Path(snapshot)
        self._ledger = Ledger(SteadyClock())
        self._changed = False
        self._saver: asyncio.Task[None] | None = None
        self._restore()

    async def sync(self, call: SyncRequest) -> SyncResponse:
        """See `Ledger.sync`."""
        if self._saver is None:
            self._saver = asyncio.create_task(self._keep_saving())
        self._changed = True
        return self._ledger.sync(call)

    def _restore(self) -> None:
        try:
            self._ledger.restore(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            kept = self._path.with_name(f"{self._path.name}.broken")
            logger.error(
                "the counts of keys in %s cannot be read: budgets and windows begin at zero; "
                "the file is kept as %s: %s",
                self._path,
                kept.name,
                error,
            )
            with contextlib.suppress(OSError):
                self._path.replace(kept)

    async def _keep_saving(self) -> None:
        pause_s = SNAPSHOT_S
        while True:
            await asyncio.sleep(pause_s)
            if self._changed:
                self._changed = False
                began = time.perf_counter()
                self._ledger.prune()
                counts = orjson.dumps(self._ledger.snapshot())
                pause_s = max(SNAPSHOT_S, (time.perf_counter() - began) / MOST_OF_LOOP)
                try:
                    await asyncio.to_thread(write_atomically, self._path, counts, durable=True)
                except OSError as error:
                    logger.error("ledger snapshot %s not written: %s", self._path, error)


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
