"""The adapters of one engine: loaded, replaced and unloaded while it serves.

Each is loaded under a name that contains its content hash: vLLM keys the blocks of its prefix cache by an
adapter's name, and would reuse those of other weights. Knows neither Ray nor vLLM.
"""

import asyncio
import logging
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deployments.contracts.blocking_calls import BlockingCalls
from deployments.expert.adapter_copies import OwnFolder, claim
from deployments.expert.adapter_folder import (
    AdapterRejectedError,
    Base,
    copy_adapter,
    fetch,
    inspect,
    read_base,
)
from deployments.settings import resolve

logger = logging.getLogger("ray.serve")

LOAD_S = 120.0
"""Time that an engine has to load an adapter, or to unload one."""
BEING_LOADED = "it is being loaded"
RETRY_AFTER_S = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)
"""Pauses after which rejected adapters are tried again; then only with the next configuration."""
DRAIN_S = 600.0
"""Time that the requests of a replaced adapter have to end before a warning; each has its own deadline."""


class AdapterNotLoadedError(Exception):
    """A request names an adapter that is not loaded; the message says why."""


class AdapterEngine(Protocol):
    """What an engine does with adapters."""

    async def load(self, name: str, folder: Path) -> None:
        """Load an adapter.

        Raises:
            AdapterRejectedError: the engine cannot.
        """
        ...

    async def unload(self, name: str) -> None:
        """Remove an adapter that no request uses."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """An adapter that was copied and checked."""

    folder: Path
    digest: str


@dataclass(slots=True, eq=False)
class _Loaded:
    """An adapter in the engine."""

    name: str
    """Its name there."""
    prepared: Prepared
    requests: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


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


class Adapters:
    """The adapters that an engine has, by the names that requests use.

    Args:
        engine: loads and unloads; `None` where it was started without LoRA.
        prepare: copies and checks a folder; blocks.
        most: adapters in the engine at once, replaced ones included; `None` for no bound.
        drain_s: time that the requests of a replaced adapter have to end before a warning.
        retry_after_s: pauses after which rejected adapters are tried again.
    """

    def __init__(
        self,
        engine: AdapterEngine | None,
        prepare: Callable[[str], Prepared],
        *,
        most: int | None = None,
        drain_s: float = DRAIN_S,
        retry_after_s: Sequence[float] = RETRY_AFTER_S,
    ) -> None:
        self.replica = uuid.uuid4().hex
        """Identifies this process in its reports, which the ingress reads from any replica."""
        self._engine, self._prepare, self._most, self._drain_s = engine, prepare, most, drain_s
        self._loaded: dict[str, _Loaded] = {}
        self._retiring: dict[str, tuple[_Loaded, asyncio.Task[None]]] = {}
        self._rejected: dict[str, str] = {}
        self._late = 0
        """Loads that the engine did not finish in time; each may have got its slot later."""
        self._loading: dict[str, asyncio.Event] = {}
        """Adapters without one before them that are being loaded; set when that ends."""
        self._changed = asyncio.Event()
        """Set when there is a newer configuration."""
        self._retry_after_s, self._retries = retry_after_s, set[asyncio.Task[None]]()
        self._lock = asyncio.Lock()
        self._files = BlockingCalls("adapters")

    async def update(self, folders: Mapping[str, str]) -> None:
        """Load what is new or has changed, and unload what is gone; what is rejected is only reported.

        Where a changed adapter is rejected, the one before stays. Rejected ones are tried again later: a slot
        may be free by then, a folder complete, the hub back.
        """
        self._changed.set()
        changed = self._changed = asyncio.Event()
        async with self._lock:
            for name in [name for name in self._loaded if name not in folders]:
                self._retire(self._loaded.pop(name))
            self._rejected = {name: BEING_LOADED for name in folders if name not in self._loaded}
            self._loading = {name: asyncio.Event() for name in self._rejected}
            try:
                for name, folder in folders.items():
                    await self._load_or_reject(name, folder)
                    if name in self._loading:
                        self._loading.pop(name).set()
            finally:
                for event in self._loading.values():
                    event.set()
        if self._rejected and not changed.is_set():
            retry = asyncio.create_task(self._retry(folders, changed))
            self._retries.add(retry)
            retry.add_done_callback(self._retries.discard)

    async def _retry(self, folders: Mapping[str, str], changed: asyncio.Event) -> None:
        """Try what is rejected again and again, until there is a newer configuration."""
        for pause_s in self._retry_after_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await changed.wait()
            async with self._lock:
                if changed.is_set() or not self._rejected:
                    return
                for name in tuple(self._rejected):
                    await self._load_or_reject(name, folders[name])

    async def _load_or_reject(self, name: str, folder: str) -> None:
        try:
            await self._load(name, folder)
            self._rejected.pop(name, None)
        except AdapterRejectedError as error:
            self._rejected[name] = error.shown
            logger.error("adapter %s rejected: %s", name, error)
        except Exception as error:  # an engine's own, of any class: the other adapters are loaded still
            self._rejected[name] = f"the engine failed ({type(error).__name__})"
            logger.exception("adapter %s was not loaded", name)

    async def settled(self, name: str) -> None:
        """Wait until an adapter that is being loaded is loaded or rejected; at once for any other.

        Another replica may have it already, so requests come.
        """
        if (loading := self._loading.get(name)) is not None:
            await loading.wait()

    @contextmanager
    def use(self, name: str) -> Iterator[str]:
        """The name of an adapter in the engine, for one request; it is not unloaded before that ends.

        Raises:
            AdapterNotLoadedError: it is not loaded.
        """
        loaded = self._loaded.get(name)
        if loaded is None:
            why = self._rejected.get(name, "the application has no such adapter")
            raise AdapterNotLoadedError(f"adapter {name!r} is not loaded: {why}")
        loaded.requests += 1
        loaded.idle.clear()
        try:
            yield loaded.name
        finally:
            loaded.requests -= 1
            if not loaded.requests:
                loaded.idle.set()

    def report(self) -> dict[str, dict[str, str | None]]:
        """Each adapter with the reason why it is not loaded, and the reasons of all rejections."""
        names = [*self._loaded, *(name for name in self._rejected if name not in self._loaded)]
        adapters = {name: None if name in self._loaded else self._rejected[name] for name in names}
        return {"adapters": adapters, "rejected": {**self._rejected}}

    async def _load(self, name: str, folder: str) -> None:
        if self._engine is None:
            raise AdapterRejectedError("the engine was started without LoRA: set engine.max_loras")
        try:
            prepared = await self._files.run(self._prepare, folder, timeout_s=LOAD_S)
        except TimeoutError as error:
            raise AdapterRejectedError(f"{folder} was not read in {LOAD_S:g} s") from error
        before = self._loaded.get(name)
        if before is not None and before.prepared.digest == prepared.digest:
            await _delete(prepared.folder)
            return
        internal = f"{name}@{prepared.digest}"
        if internal in self._retiring:  # it was replaced a short time ago, and is wanted again
            loaded, task = self._retiring.pop(internal)
            task.cancel()
            await _delete(prepared.folder)
        else:
            loaded = _Loaded(internal, prepared)
            loaded.idle.set()
            try:
                self._require_slot()
                async with asyncio.timeout(LOAD_S):
                    await self._engine.load(internal, prepared.folder)
            except BaseException as error:
                await _delete(prepared.folder)
                if isinstance(error, TimeoutError):
                    self._late += 1
                    raise AdapterRejectedError(f"the engine did not load it in {LOAD_S:g} s") from error
                raise
            logger.info("adapter %s loaded as %s", name, internal)
        self._loaded[name] = loaded
        if before is not None:
            self._retire(before)

    def _require_slot(self) -> None:
        inside = len(self._loaded) + len(self._retiring) + self._late
        if self._most is not None and inside >= self._most:
            raise AdapterRejectedError(
                f"the engine holds {inside} adapters, replaced ones with open requests included, and on a "
                f"CPU {self._most} at most: raise engine.max_loras"
            )

    def _retire(self, loaded: _Loaded) -> None:
        task = asyncio.create_task(self._unload(loaded))
        self._retiring[loaded.name] = (loaded, task)

    async def _unload(self, loaded: _Loaded) -> None:
        """Unload an adapter once its last request has ended; an engine fails that lacks it before."""
        while loaded.requests:
            try:
                async with asyncio.timeout(self._drain_s):
                    await loaded.idle.wait()
            except TimeoutError:
                logger.warning("adapter %s still has %d requests", loaded.name, loaded.requests)
        # From here on it cannot be taken back: a load under its name must wait until it is gone.
        async with self._lock:
            retiring = self._retiring.pop(loaded.name)
            if self._engine is None:
                return
            try:
                async with asyncio.timeout(LOAD_S):
                    await self._engine.unload(loaded.name)
            except Exception:  # an engine's own, of any class
                logger.exception("adapter %s was not unloaded", loaded.name)
                self._retiring[loaded.name] = retiring  # it still has its slot
                return
            logger.info("adapter %s unloaded", loaded.name)
        await _delete(loaded.prepared.folder)


async def _delete(folder: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
