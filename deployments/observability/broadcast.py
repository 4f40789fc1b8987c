"""Broadcasts to every replica of the graph, in a bounded time: for metrics and for ratings.

The only caller of Serve's `broadcast`. A replica that does not respond in time is left out and counted:
one that hangs must not hide the others.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import ray.exceptions
from ray import serve
from ray.serve import exceptions as serve_exceptions

from deployments.contracts.blocking_calls import BlockingCalls
from deployments.engine_settings import EXPERT_DEPLOYMENT
from deployments.observability import metrics
from deployments.observability.exposition import engine_only, joined
from deployments.replica import replica_deployment

logger = logging.getLogger("ray.serve")

SCRAPE_S = 2.0
"""Timeout of one replica's metrics; Prometheus itself waits ten seconds."""
FRESH_S = 1.0
"""Metrics younger than this are returned again, however many requests there are."""
RECALL_S = 1.0
JOIN_TIMEOUT_S = 10.0
UNREACHABLE = (
    TimeoutError,
    ray.exceptions.RayError,
    serve_exceptions.RayServeException,
    ValueError,  # no such application
    KeyError,  # the application is there, its deployment not yet
)
"""What a handle and a call on it raise."""


class Replicas:
    """All replicas, as one ingress replica reaches them.

    Args:
        own: this replica's name and metrics.
        router: the router's handle.
        experts: name → application of the experts that run somewhere in this cluster.
        here: deployment and application of the ingress.
        handle_for: makes the handle of a deployment of an application; may take long.
        scrape_s: timeout of one replica's metrics.
        recall_s: timeout of the search for a response's origin.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        own: Callable[[], tuple[str, bytes]],
        router: Any,
        experts: Callable[[], dict[str, str]],
        *,
        here: Callable[[], tuple[str, str]] = replica_deployment,
        handle_for: Callable[[str, str], Any] = serve.get_deployment_handle,
        scrape_s: float = SCRAPE_S,
        recall_s: float = RECALL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own, self._router, self._experts = own, router, experts
        self._here, self._handle_for, self._clock = here, handle_for, clock
        self._scrape_s, self._recall_s = scrape_s, recall_s
        self._handles: dict[tuple[str, str], Any] = {}
        # Two threads: texts can be joined while the controller, which handles need, is away.
        self._lookups, self._joins = BlockingCalls("handles"), BlockingCalls("metrics")
        self._gathering = asyncio.Lock()
        self._last: tuple[float, bytes] | None = None

    async def metrics(self) -> bytes:
        """The metrics of all ingress and router replicas and of their engines, as one text."""
        async with self._gathering:
            if self._last is None or self._clock() - self._last[0] >= FRESH_S:
                text = await self._gather()
                # Stamped when it is complete: requests that waited for a slow gathering need no other.
                self._last = (self._clock(), text)
            return self._last[1]

    async def metrics_without_engines(self) -> bytes:
        """The metrics of all ingress and router replicas, which no expert is called for; never cached."""
        return await self._joins.run(joined, await self._graph_texts(), timeout_s=JOIN_TIMEOUT_S)

    async def recall(self, request_id: str) -> tuple[Any, bool]:
        """The origin of a response as any ingress replica knows it, and whether all of them responded."""
        results = await self._call_app("ingress", *self._here(), "recall", self._recall_s, request_id)
        missing = any(isinstance(item, BaseException) for item in results)
        return next(
            (item for item in results if item and not isinstance(item, BaseException)), None
        ), not missing

    async def _gather(self) -> bytes:
        apps = self._experts()
        for target in [target for target in self._handles if target[0] == EXPERT_DEPLOYMENT]:
            if target[1] not in apps.values():
                del self._handles[target]
        calls: list[Coroutine[Any, Any, list[Any]]] = [
            self._call_app("expert", EXPERT_DEPLOYMENT, app, "exposition", self._scrape_s)
            for app in apps.values()
        ]
        texts, engines = await asyncio.gather(self._graph_texts(), asyncio.gather(*calls))
        texts += [(name, engine_only(text)) for results in engines for name, text in _texts(results)]
        return await self._joins.run(joined, texts, timeout_s=JOIN_TIMEOUT_S)

    async def _graph_texts(self) -> list[tuple[str, bytes]]:
        """(name, metrics) of this replica, of the other ingress replicas, and of the router's."""
        ingresses, routers = await asyncio.gather(
            self._call_app("ingress", *self._here(), "exposition", self._scrape_s),
            self._call("router", self._router, "exposition", self._scrape_s),
        )
        own = self._own()
        return [own, *(pair for pair in _texts(ingresses) if pair[0] != own[0]), *_texts(routers)]

    async def _call_app(
        self, kind: str, deployment: str, app: str, method: str, timeout_s: float, *args: Any
    ) -> list[Any]:
        """The result of each replica of an application's deployment, or the error in its place."""
        try:
            handle = await self._handle(deployment, app, timeout_s)
        except UNREACHABLE as error:
            logger.info("the %s of %s left out of %s: %s", kind, app, method, type(error).__name__)
            metrics.unscraped.labels(kind).inc()
            return [error]
        return await self._call(kind, handle, method, timeout_s, *args)

    async def _call(self, kind: str, handle: Any, method: str, timeout_s: float, *args: Any) -> list[Any]:
        """The result of each replica, or the error in its place."""
        try:
            responses = handle.broadcast(method, *args)
            # Bounded here too: Serve bounds its replicas' responses, not what it does before.
            async with asyncio.timeout(2 * timeout_s):
                results: list[Any] = await responses.results_async(
                    timeout_s=timeout_s, return_exceptions=True
                )
        except UNREACHABLE as error:
            results = [error]
        for failure in (item for item in results if isinstance(item, BaseException)):
            logger.info("a replica of the %s did not respond to %s: %s", kind, method, type(failure).__name__)
            metrics.unscraped.labels(kind).inc()
        return results

    async def _handle(self, deployment: str, app: str, timeout_s: float) -> Any:
        """A handle, made once: each has its own long poll."""

        def make() -> Any:
            if (deployment, app) not in self._handles:
                self._handles[deployment, app] = self._handle_for(deployment, app)
            return self._handles[deployment, app]

        known = self._handles.get((deployment, app))
        return known or await self._lookups.run(make, timeout_s=timeout_s)


def _texts(results: Iterable[Any]) -> list[tuple[str, bytes]]:
    return [(item[0], item[1]) for item in results if not isinstance(item, BaseException)]
