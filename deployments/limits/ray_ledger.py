"""The common ledger as one Ray actor, and the ingress' way to it.

Detached: it outlives the replicas and a redeploy. Its counts are written to a file twice a second,
so that a killed ledger comes back with at most a second missing.
"""

import asyncio
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from deployments.limits.ledger import Ledger, Sync, Synced
from router.files import write_atomically

logger = logging.getLogger("ray.serve")

NAME = "to-router-ledger"
NAMESPACE = "to-router"
SNAPSHOT_S = 0.5


class LedgerActor:
    """Counts for all ingress replicas.

    Args:
        snapshot: where counts are kept; on a cluster of several machines, a shared folder.
    """

    def __init__(self, snapshot: str) -> None:
        self._path = Path(snapshot)
        self._ledger = Ledger(time.time)
        self._changed = False
        self._saver: asyncio.Task[None] | None = None
        self._restore()

    async def sync(self, told: Sync) -> Synced:
        """See `Ledger.sync`."""
        if self._saver is None:
            self._saver = asyncio.create_task(self._keep_saving())
        self._changed = True
        return self._ledger.sync(told)

    async def process_id(self) -> int:
        """For the operator, and for those who test what its death does."""
        return os.getpid()

    def _restore(self) -> None:
        try:
            self._ledger.restore(json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return
        except (OSError, ValueError, LookupError, TypeError) as error:
            logger.error("ledger snapshot %s not taken over, counts begin at zero: %s", self._path, error)

    async def _keep_saving(self) -> None:
        while True:
            await asyncio.sleep(SNAPSHOT_S)
            if self._changed:
                self._changed = False
                text = json.dumps(self._ledger.snapshot())
                try:
                    await asyncio.to_thread(write_atomically, self._path, text, durable=True)
                except OSError as error:
                    logger.error("ledger snapshot %s not written: %s", self._path, error)


class LedgerHandle:
    """The way to the common ledger, which is started by whoever asks first."""

    def __init__(self, snapshot: str) -> None:
        self._snapshot = snapshot
        self._actor: Any = None

    async def sync(self, told: Sync, timeout_s: float) -> Synced:
        """Tell and ask; raises `TimeoutError` or `ConnectionError`."""
        try:
            async with asyncio.timeout(timeout_s):
                if self._actor is None:
                    self._actor = await asyncio.to_thread(self._start)
                synced: Synced = await self._actor.sync.remote(told)
        except ray.exceptions.ActorDiedError as error:
            self._actor = None
            raise ConnectionError(type(error).__name__) from error
        except (ray.exceptions.RayError, ValueError) as error:
            raise ConnectionError(type(error).__name__) from error
        return synced

    def _start(self) -> Any:
        options = {
            "name": NAME,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "num_cpus": 0,
            "max_restarts": -1,
            "max_concurrency": 100,
        }
        return ray.remote(LedgerActor).options(**options).remote(self._snapshot)
