"""Adapters on the way to an engine: fetched, copied and checked, off the event loop in a bounded time."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deployments.contracts.blocking_calls import BlockingCalls
from deployments.expert.adapter_copies import OwnFolder, claim
from deployments.expert.adapter_folder import (
    AdapterRejectedError,
    Base,
    copy_adapter,
    fetch,
    inspect,
    is_hub_id,
    read_base,
)
from deployments.settings import resolve


@dataclass(frozen=True, slots=True)
class Prepared:
    """An adapter that was copied and checked."""

    folder: Path
    digest: str


class AdapterFolders:
    """Copies and checks adapters' folders; blocks.

    Args:
        model: folder or hub id of the engine's model.
        max_rank: the engine's `max_lora_rank`.
        copies: a folder for the copies of all replicas; it must be visible to all workers of the engine.
    """

    def __init__(self, model: str, *, max_rank: int, copies: Path) -> None:
        self._model, self._max_rank, self._copies = model, max_rank, copies
        self._base: Base | None = None
        self._own: OwnFolder | None = None
        self._claiming = threading.Lock()

    def prepare(self, folder: str) -> Prepared:
        """Copy and check an adapter.

        Raises:
            AdapterRejectedError: an engine cannot serve it.
        """
        if self._base is None:
            self._base = read_base(self._model)
        source = resolve(folder)
        if not source.is_dir():
            source = fetch(folder)
        try:
            with self._claiming:
                if self._own is None:
                    self._own = claim(self._copies)
            copy = Path(tempfile.mkdtemp(prefix="adapter-", dir=self._own.path))
        except OSError as error:
            raise AdapterRejectedError(f"no copy can be made in {self._copies}: {error.strerror}") from error
        try:
            digest = copy_adapter(source, copy)
            inspect(copy, self._base, max_rank=self._max_rank)
        except BaseException:
            shutil.rmtree(copy, ignore_errors=True)
            raise
        return Prepared(copy, digest)


class Preparation:
    """Prepares one adapter at a time; those of the hub apart, so that no folder waits for a download.

    Args:
        prepare: copies and checks a folder; blocks.
        within_s: time that each has.
    """

    def __init__(self, prepare: Callable[[str], Prepared], within_s: float) -> None:
        self._prepare, self._within_s = prepare, within_s
        self._folders, self._hub = BlockingCalls("adapters"), BlockingCalls("adapters-of-hub")

    async def run(self, folder: str) -> Prepared:
        """Return the copy of a folder or of a hub id's files; one that is made too late is deleted.

        Raises:
            AdapterRejectedError: an engine cannot serve it, or it was not read in time.
        """
        on_hub = is_hub_id(folder) and not await asyncio.to_thread(resolve(folder).is_dir)
        calls = self._hub if on_hub else self._folders
        try:
            return await calls.run(self._prepare, folder, timeout_s=self._within_s, unwanted=_delete)
        except TimeoutError as error:
            raise AdapterRejectedError(f"{folder} was not read in {self._within_s:g} s") from error


async def delete(prepared: Prepared) -> None:
    """Delete a copy."""
    await asyncio.to_thread(_delete, prepared)


def _delete(prepared: Prepared) -> None:
    shutil.rmtree(prepared.folder, ignore_errors=True)
