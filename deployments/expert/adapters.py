"""The adapters of one engine: loaded, replaced and unloaded while it serves.

Each is loaded under a name that contains its content hash: vLLM keys the blocks of its prefix cache by an
adapter's name, and would reuse those of other weights. Knows neither Ray nor vLLM.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deployments.expert.adapter_folder import AdapterRejectedError
from deployments.expert.adapter_preparation import Preparation, Prepared, delete

logger = logging.getLogger("ray.serve")

COPY_S = 120.0
"""Time to fetch, copy and check an adapter."""
LOAD_S = 120.0
"""Time that an engine has to load an adapter, or to unload one."""
BEING_LOADED = "it is being loaded"
RETRY_AFTER_S = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)
"""Pauses after which a rejected adapter, or an unload that failed, is tried again; then only with the next
configuration."""
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


@dataclass(slots=True, eq=False)
class _Loaded:
    """An adapter in the engine."""

    name: str
    """Its name there."""
    prepared: Prepared
    requests: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class Adapters:
    """The adapters that an engine has, by the names that requests use.

    Args:
        engine: loads and unloads; `None` where it was started without LoRA.
        prepare: copies and checks a folder; blocks.
        most: adapters in the engine at once, replaced ones included; `None` for no bound.
        drain_s: time that the requests of a replaced adapter have to end before a warning.
        retry_after_s: pauses after which rejected adapters and failed unloads are tried again.
        load_s: time that the engine has to load an adapter, or to unload one.
    """

    def __init__(
        self,
        engine: AdapterEngine | None,
        prepare: Callable[[str], Prepared],
        *,
        most: int | None = None,
        drain_s: float = DRAIN_S,
        retry_after_s: Sequence[float] = RETRY_AFTER_S,
        load_s: float = LOAD_S,
    ) -> None:
        self.replica = uuid.uuid4().hex
        """Identifies this process in its reports, which the ingress reads from any replica."""
        self._engine, self._most, self._drain_s, self._load_s = engine, most, drain_s, load_s
        self._preparation = Preparation(prepare, COPY_S)
        self._loaded: dict[str, _Loaded] = {}
        self._retiring: dict[str, tuple[_Loaded, asyncio.Task[None]]] = {}
        self._rejected: dict[str, str] = {}
        self._late: dict[str, asyncio.Task[None]] = {}
        """Loads that the engine did not finish in time, by their names there; each may take its slot yet."""
        self._loading: dict[str, asyncio.Event] = {}
        """Adapters without one before them that are being loaded; each is removed and set when that ends."""
        self._changed = asyncio.Event()
        """Set when there is a newer configuration."""
        self._retry_after_s, self._retries = retry_after_s, set[asyncio.Task[None]]()
        self._lock = asyncio.Lock()
        """Held for one adapter at a time, so that a newer configuration waits for no further one."""

    async def update(self, folders: Mapping[str, str]) -> None:
        """Load what is new or has changed, and unload what is gone; what is rejected is only reported.

        Where a changed adapter is rejected, the one before stays. Rejected ones are tried again later: a slot
        may be free by then, a folder complete, the hub back.
        """
        self._changed.set()
        changed = self._changed = asyncio.Event()
        try:
            async with self._lock:
                if changed.is_set():
                    return
                self._begin(folders)
            for name, folder in folders.items():
                async with self._lock:
                    if changed.is_set():
                        return
                    await self._load_or_reject(name, folder)
                    self._settle(name)
        finally:
            if not changed.is_set():  # else the newer configuration has taken over those that wait
                for name in tuple(self._loading):
                    self._settle(name)
        if self._rejected and not changed.is_set():
            retry = asyncio.create_task(self._retry(folders, changed))
            self._retries.add(retry)
            retry.add_done_callback(self._retries.discard)

    def _begin(self, folders: Mapping[str, str]) -> None:
        """Unload what is gone, also what could not be unloaded before, and note what is to be loaded."""
        for loaded, task in tuple(self._retiring.values()):
            if task.done():
                self._retire(loaded)
        for name in [name for name in self._loaded if name not in folders]:
            self._retire(self._loaded.pop(name))
        self._rejected = {name: BEING_LOADED for name in folders if name not in self._loaded}
        for name in self._loading.keys() - self._rejected.keys():
            self._settle(name)
        for name in self._rejected:
            self._loading.setdefault(name, asyncio.Event())

    def _settle(self, name: str) -> None:
        if name in self._loading:
            self._loading.pop(name).set()

    async def _retry(self, folders: Mapping[str, str], changed: asyncio.Event) -> None:
        """Try what is rejected again and again, until there is a newer configuration."""
        for pause_s in self._retry_after_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await changed.wait()
            for name in tuple(self._rejected):
                async with self._lock:
                    if changed.is_set():
                        return
                    await self._load_or_reject(name, folders[name])
            if changed.is_set() or not self._rejected:
                return

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
        while (loading := self._loading.get(name)) is not None:  # a newer configuration may want it too
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
        prepared = await self._preparation.run(folder)
        before = self._loaded.get(name)
        if before is not None and before.prepared.digest == prepared.digest:
            await delete(prepared)
            return
        internal = f"{name}@{prepared.digest}"
        if internal in self._retiring:  # it was replaced a short time ago, and is wanted again
            loaded, task = self._retiring.pop(internal)
            task.cancel()
            await delete(prepared)
        else:
            loaded = _Loaded(internal, prepared)
            loaded.idle.set()
            try:
                self._require_slot(internal)
            except AdapterRejectedError:
                await delete(prepared)
                raise
            await self._into(self._engine, loaded)
            logger.info("adapter %s loaded as %s", name, internal)
        self._loaded[name] = loaded
        if before is not None:
            self._retire(before)

    async def _into(self, engine: AdapterEngine, loaded: _Loaded) -> None:
        """Load a copy, which stays for as long as the engine may read it."""
        load = asyncio.create_task(engine.load(loaded.name, loaded.prepared.folder))
        in_time = False
        try:
            done, _ = await asyncio.wait({load}, timeout=self._load_s)
            in_time = bool(done)
        finally:
            if not in_time:
                self._late[loaded.name] = asyncio.create_task(self._end_late(load, loaded))
        if not in_time:
            raise AdapterRejectedError(f"the engine did not load it in {self._load_s:g} s")
        try:
            load.result()
        except BaseException:
            await delete(loaded.prepared)
            raise

    async def _end_late(self, load: "asyncio.Task[None]", loaded: _Loaded) -> None:
        """Once a load that was given up has ended, unload what it loaded, and free its slot."""
        await asyncio.wait({load})
        del self._late[loaded.name]
        if load.cancelled() or load.exception() is not None:
            await delete(loaded.prepared)
        else:
            logger.warning("adapter %s was loaded too late, and is unloaded", loaded.name)
            self._retire(loaded)

    def _require_slot(self, internal: str) -> None:
        if internal in self._late:
            raise AdapterRejectedError(
                f"the engine did not load it in {self._load_s:g} s, and loads it still"
            )
        inside = len(self._loaded) + len(self._retiring) + len(self._late)
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
        for pause_s in (*self._retry_after_s, None):
            async with self._lock:  # meanwhile it cannot be taken back: a load under its name waits
                if await self._is_unloaded(loaded):
                    del self._retiring[loaded.name]
                    break
            if pause_s is None:
                return  # it still has its slot
            await asyncio.sleep(pause_s)
        await delete(loaded.prepared)

    async def _is_unloaded(self, loaded: _Loaded) -> bool:
        if self._engine is None:
            return True
        try:
            async with asyncio.timeout(self._load_s):
                await self._engine.unload(loaded.name)
        except Exception:  # an engine's own, of any class
            logger.exception("adapter %s was not unloaded", loaded.name)
            return False
        logger.info("adapter %s unloaded", loaded.name)
        return True
