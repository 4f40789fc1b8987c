"""An expert: one vLLM engine per replica, behind vLLM's own OpenAI app in process.

No engine adapter: every endpoint is vLLM's. The engine's imports wait until a replica starts, so
that building an application is fast even where there are many.
"""

import logging
import os
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import orjson
import ray
from ray import serve

from deployments.config import EXPERT_DEPLOYMENT, ExpertArgs
from deployments.contracts import heartbeats
from deployments.contracts.messages import HEARTBEATS, REPLICA_KEY, Head, Headers
from deployments.expert.asgi import call
from deployments.placement import expert_options
from deployments.replica import replica_name

logger = logging.getLogger("ray.serve")

ENGINE_NICENESS = 4
"""Niceness of an engine on a CPU: its priority is below that of the ingress and the router."""


class Expert:
    """One engine replica."""

    # Serve awaits an async constructor.
    async def __init__(self, args: ExpertArgs) -> None:  # type: ignore[misc]
        from deployments.expert.engine import start

        if args.accelerator == "cpu":
            # They share its cores, and a token more or less waits for less than a query to be routed.
            os.nice(ENGINE_NICENESS)
        self._name = args.name
        self._engine, self._app, self._counter = await start(args)
        await self._warm_up()

    async def check_health(self) -> None:
        """Raise when the engine is dead, so that Serve starts another replica."""
        await self._engine.check_health()

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
        """
        sent = tuple(header for header in headers if header[0] not in (HEARTBEATS[0], REPLICA_KEY))
        response = call(self._app, method, path, sent, body)
        if heartbeats.are_wanted(headers):
            response = heartbeats.with_heartbeats(response, lambda: self._counter.steps)
        try:
            async for part in response:
                yield replace(part, load=self._counter.load) if isinstance(part, Head) else part
        finally:
            await response.aclose()


def build(args: ExpertArgs) -> Any:
    """Return the Serve application of one expert, with the options that Ray Serve LLM's builder sets."""
    inherited = ray.get_runtime_context().runtime_env
    return serve.deployment(
        Expert, name=EXPERT_DEPLOYMENT, **expert_options(args, runtime_env=inherited)
    ).bind(args)
