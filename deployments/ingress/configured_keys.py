"""The key file and the counts that the configuration in effect names: read first, then put into effect."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from deployments.config import KeysSettings
from deployments.contracts.blocking_calls import BlockingCalls
from deployments.ingress.access import Access
from deployments.limits.keys import KeyRing
from deployments.limits.ledger_client import LedgerClient
from deployments.settings import resolve

logger = logging.getLogger("ray.serve")

PERIOD_S = 0.5
"""Interval of looking at the key file."""
READ_TIMEOUT_S = 5.0
"""A file system may hang; a key file is small."""


class ConfiguredKeys:
    """Keeps an `Access` as the configuration in effect has it.

    Args:
        access: what requests are checked against.
        ledger_client: makes the client of the common counts, from their file.
    """

    def __init__(self, access: Access, ledger_client: Callable[[Path], LedgerClient]) -> None:
        self._access, self._ledger_client = access, ledger_client
        self._reader = BlockingCalls("key-file")
        self._ring: KeyRing | None = None
        self._ledger: LedgerClient | None = None
        self.settings: KeysSettings | None = None
        """The settings in effect; `None` while no key is required."""

    async def read(self, settings: KeysSettings | None) -> KeyRing | None:
        """Return the keys of other settings, or those in effect where the settings are the same.

        A file that cannot be read sets the `error` of the keys that are returned.
        """
        if settings is None or settings == self.settings:
            return None if settings is None else self._ring
        ring = KeyRing(resolve(settings.file), settings.max_concurrent)
        try:
            await self._reader.run(ring.refresh, timeout_s=READ_TIMEOUT_S)
        except TimeoutError:
            ring.error = f"{ring.path} could not be read within {READ_TIMEOUT_S:g} s"
        return ring

    async def apply(self, settings: KeysSettings | None, ring: KeyRing | None) -> None:
        """Put settings and the keys that `read` returned for them into effect."""
        if settings == self.settings:
            return
        replaced = self._ledger
        self.settings, self._ring, self._ledger = settings, ring, None
        if settings is not None:
            file = resolve(settings.file)
            counts = file.with_suffix(".counts.json") if settings.counts is None else resolve(settings.counts)
            self._ledger = self._ledger_client(counts)
            self._ledger.start()
        self._access.replace(ring, self._ledger)
        if replaced is not None:
            await replaced.stop()

    async def look(self) -> None:
        """Read the key file again if it changed."""
        try:
            await self._reader.run(self._access.refresh, timeout_s=READ_TIMEOUT_S)
        except TimeoutError:
            logger.error("the key file could not be read within %g s", READ_TIMEOUT_S)

    async def watch(self) -> None:
        """Look at the key file until cancelled; its own thread, so that nothing delays a revocation."""
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.look()
