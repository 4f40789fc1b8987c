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

from deployments.config import EXPERT_DEPLOYMENT
from deployments.observability import metrics
from deployments.observability.exposition import engine_only, joined
from deployments.replica import replica_deployment

logger = logging.getLogger("ray.serve")

SCRAPE_S = 2.0
"""Timeout of one replica's metrics; Prometheus itself waits ten seconds."""
FRESH_S = 1.0
"""Metrics younger than this are returned again, however many requests there are."""
RECALL_S = 1.0


class Replicas:
    """All replicas, as one ingress replica reaches them.

    Args:
        own: this replica's name and metrics.
        router: the router's handle.
        experts: name → application of the experts that run somewhere in this cluster.
        here: deployment and application of the ingress.
        handle_for: makes the handle of a deployment of an application; may take long.
    """

    def __init__(
        self,
        own: Callable[[], tuple[str, bytes]],
        router: Any,
        experts: Callable[[], dict[str, str]],
        *,
        here: Callable[[], tuple[str, str]] = replica_deployment,
        handle_for: Callable[[str, str], Any] = serve.get_deployment_handle,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own, self._router, self._experts = own, router, experts
        self._here, self._handle_for, self._clock = here, handle_for, clock
        self._handles: dict[tuple[str, str], Any] = {}
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

    async def recall(self, request_id: str) -> tuple[Any, bool]:
        """The origin of a response as any ingress replica knows it, and whether all of them responded."""
        results = await self._call("ingress", await self._ingress(), "recall", RECALL_S, request_id)
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
            self._call("ingress", await self._ingress(), "exposition", SCRAPE_S),
            self._call("router", self._router, "exposition", SCRAPE_S),
            *(self._call_expert(app) for app in apps.values()),
        ]
        ingresses, routers, *engines = await asyncio.gather(*calls)
        own = self._own()
        texts = [own, *(pair for pair in _texts(ingresses) if pair[0] != own[0]), *_texts(routers)]
        texts += [(name, engine_only(text)) for results in engines for name, text in _texts(results)]
        return await asyncio.to_thread(joined, texts)

    async def _call_expert(self, app: str) -> list[Any]:
        try:
            handle = await asyncio.wait_for(self._handle(EXPERT_DEPLOYMENT, app), SCRAPE_S)
        except (
            TimeoutError,
            ray.exceptions.RayError,
            serve_exceptions.RayServeException,
            ValueError,
        ) as error:
            logger.info("metrics of %s left out: %s", app, type(error).__name__)
            metrics.unscraped.labels("expert").inc()
            return []
        return await self._call("expert", handle, "exposition", SCRAPE_S)

    async def _call(self, kind: str, handle: Any, method: str, timeout_s: float, *args: Any) -> list[Any]:
        """The result of each replica, or the error in its place."""
        try:
            responses = handle.broadcast(method, *args)
            results: list[Any] = await responses.results_async(timeout_s=timeout_s, return_exceptions=True)
        except (TimeoutError, ray.exceptions.RayError, serve_exceptions.RayServeException) as error:
            results = [error]
        for failure in (item for item in results if isinstance(item, BaseException)):
            logger.info("a replica of the %s did not respond to %s: %s", kind, method, type(failure).__name__)
            metrics.unscraped.labels(kind).inc()
        return results

    async def _ingress(self) -> Any:
        return await self._handle(*self._here())

    async def _handle(self, deployment: str, app: str) -> Any:
        """A handle, made once: each has its own long poll."""
        if (deployment, app) not in self._handles:
            made = await asyncio.to_thread(self._handle_for, deployment, app)
            self._handles[deployment, app] = made
        return self._handles[deployment, app]


def _texts(results: Iterable[Any]) -> list[tuple[str, bytes]]:
    return [(item[0], item[1]) for item in results if not isinstance(item, BaseException)]
