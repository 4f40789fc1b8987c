"""An expert: one vLLM engine per replica, behind vLLM's own OpenAI app in process.

No engine adapter: every endpoint is vLLM's, and only the list of models shows more than vLLM's own. The
engine's imports wait until a replica starts, so that building an application is fast even where there are
many.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import orjson
import ray
from pydantic import ValidationError
from ray import serve

from deployments.contracts import heartbeats
from deployments.contracts.errors import ErrorCode, envelope
from deployments.contracts.messages import HEARTBEATS, REPLICA_KEY, Head, Headers
from deployments.contracts.variants import ADAPTER, ADAPTERS_PATH
from deployments.engine_settings import EXPERT_DEPLOYMENT, ExpertArgs, ExpertConfig
from deployments.expert.adapter_preparation import AdapterFolders
from deployments.expert.adapters import AdapterNotLoadedError, Adapters
from deployments.expert.asgi import call
from deployments.expert.model_list import with_shape
from deployments.expert.requested_model import adapter_in, with_model
from deployments.placement import expert_options
from deployments.replica import replica_name
from deployments.settings import state_folder
from router.validation import explain

logger = logging.getLogger("ray.serve")

OURS = frozenset({HEARTBEATS[0], REPLICA_KEY, ADAPTER})
"""Headers from the ingress to a replica, which vLLM does not get."""
ADAPTERS_WITHIN_S = 300.0
"""Time that a replica which starts waits for all its adapters; later, only requests for them wait."""
ENGINE_NICENESS = 4
"""Niceness of an engine on a CPU: its priority is below that of the ingress and the router."""

PIECE_INTERVAL_S = 0.02
"""At least, between two pieces of a stream: a piece costs the replica and the ingress the same processor time
whether it holds one token or several, and no reader sees more than fifty in a second."""


class EngineDiedError(RuntimeError):
    """The engine is dead, and with it all variants: to the ingress this replica is away."""


class Expert:
    """One engine replica."""

    # Serve awaits an async constructor.
    async def __init__(self, args: ExpertArgs) -> None:  # type: ignore[misc]
        from deployments.expert.engine import loaded_models, start

        if args.accelerator == "cpu":
            # They share its cores, and a token more or less waits for less than a query to be routed.
            os.nice(ENGINE_NICENESS)
        self._name, self._model = args.name, args.model_source
        self._engine, self._app, self._counter, self._shape = await start(args)
        self._adapters = Adapters(
            loaded_models(self._app) if args.takes_adapters else None,
            AdapterFolders(
                args.model_source, max_rank=args.max_lora_rank, copies=state_folder() / "adapters"
            ).prepare,
            most=args.most_adapters,
        )
        self._updates: list[asyncio.Task[None]] = []
        self._serves, self._adapters_within_s = False, ADAPTERS_WITHIN_S
        await self._warm_up()

    async def reconfigure(self, user_config: Any) -> None:
        """Load and unload adapters in place; an invalid `user_config` is rejected, and those before stay.

        Serve sends a replica no request until this returns. So only a replica that starts waits for its
        adapters, for a bounded time; one that serves goes on meanwhile.
        """
        try:
            config = ExpertConfig.model_validate(user_config or {})
        except ValidationError as error:
            logger.error("configuration of %s rejected: %s", self._name, explain(error, "user_config"))
            return
        self._updates = [update for update in self._updates if not update.done()]
        update = asyncio.create_task(self._adapters.update(config.adapters))
        self._updates.append(update)
        if not self._serves:
            await asyncio.wait({update}, timeout=self._adapters_within_s)

    async def check_health(self) -> None:
        """Raise when the engine is dead, so that Serve starts another replica."""
        await self._engine.check_health()

    async def _require_engine(self) -> None:
        try:
            await self._engine.check_health()
        except Exception as error:  # noqa: BLE001 - vLLM's, which an ingress without vLLM could not read
            raise EngineDiedError(type(error).__name__) from None

    async def _warm_up(self) -> None:
        """Pay for what an engine compiles and loads on its first request before Serve sends one.

        Any response is fine: an embedding model rejects chat, and is warm by then.
        """
        body = orjson.dumps(
            {
                "model": self._name,
                "messages": [{"role": "user", "content": "hello"}],
                "max_tokens": 2,
                "stream": True,
            }
        )
        started = time.monotonic()
        response = call(
            self._app, "POST", "/v1/chat/completions", ((b"content-type", b"application/json"),), body
        )
        async for _ in response:
            pass
        logger.info("%s warmed up in %.1f s", self._name, time.monotonic() - started)

    async def exposition(self) -> tuple[str, bytes]:
        """Return this replica's name and its engine's metrics, in the text format of Prometheus."""
        response = call(self._app, "GET", "/metrics", (), b"")
        body = b"".join([part.body if isinstance(part, Head) else part async for part in response])
        return replica_name(), body

    async def http(
        self, method: str, path: str, headers: Headers, body: bytes
    ) -> AsyncGenerator[Head | bytes, None]:
        """Respond as `vllm serve` would: a `Head`, then body bytes.

        A caller that wants heartbeats gets them before the head while the engine takes steps, for whatever
        request. Cancelling the call aborts the engine's request.

        Raises:
            EngineDiedError: instead of the status 500 that a dead engine's app responds with.
        """
        self._serves = True
        await self._require_engine()
        if path == ADAPTERS_PATH:
            yield _json(200, {**self._adapters.report(), "replica": self._adapters.replica})
            return
        sent = tuple(header for header in headers if header[0] not in OURS)
        adapter = adapter_in(headers)
        with ExitStack() as in_use:
            if adapter is not None and method == "POST":
                await self._adapters.settled(adapter)
                try:
                    model = in_use.enter_context(self._adapters.use(adapter)) if adapter else self._name
                except AdapterNotLoadedError as error:
                    yield _json(500, envelope(str(error), "server_error", ErrorCode.EXPERT_UNAVAILABLE))
                    return
                body = with_model(body, model)
            response = call(self._app, method, path, sent, body, interval_s=PIECE_INTERVAL_S)
            if (method, path) == ("GET", "/v1/models"):
                yield with_shape(await _whole(response), self._model, self._shape)
                return
            if heartbeats.are_wanted(headers):
                response = heartbeats.with_heartbeats(response, lambda: self._counter.steps)
            try:
                async for part in response:
                    if not isinstance(part, Head):
                        yield part
                        continue
                    if part.status >= 500:
                        await self._require_engine()
                    yield replace(part, load=self._counter.load)
            finally:
                await response.aclose()


def _json(status: int, value: Any) -> Head:
    return Head(status, ((b"content-type", b"application/json"),), orjson.dumps(value), complete=True)


async def _whole(response: AsyncGenerator[Head | bytes, None]) -> Head:
    """A response in one piece."""
    head, *rest = [part async for part in response]
    assert isinstance(head, Head)  # noqa: S101 - `call` yields the head first
    return replace(
        head, body=b"".join([head.body, *(part for part in rest if isinstance(part, bytes))]), complete=True
    )


def build(args: ExpertArgs) -> Any:
    """Return the Serve application of one expert, with the options that Ray Serve LLM's builder sets."""
    inherited = ray.get_runtime_context().runtime_env
    return serve.deployment(
        Expert, name=EXPERT_DEPLOYMENT, **expert_options(args, runtime_env=inherited)
    ).bind(args)
