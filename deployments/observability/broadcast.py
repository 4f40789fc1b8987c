"""Ask every replica of the graph at once, in a bounded time: for metrics and for ratings.

The only caller of Serve's `broadcast`. A replica that does not answer in time is left out and counted:
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
"""What one replica may take to tell its metrics; Prometheus itself waits ten seconds."""
FRESH_S = 1.0
"""Metrics younger than this are told again, however many ask."""
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
                told = await self._gather()
                # Stamped when it is there: those who waited for a slow gathering need no other.
                self._last = (self._clock(), told)
            return self._last[1]

    async def recall(self, request_id: str) -> tuple[Any, bool]:
        """What any ingress replica knows of an answered request, and whether all of them spoke."""
        found = await self._ask("ingress", await self._ingress(), "recall", RECALL_S, request_id)
        missing = any(isinstance(item, BaseException) for item in found)
        return next(
            (item for item in found if item and not isinstance(item, BaseException)), None
        ), not missing

    async def _gather(self) -> bytes:
        apps = self._experts()
        for place in [place for place in self._handles if place[0] == EXPERT_DEPLOYMENT]:
            if place[1] not in apps.values():
                del self._handles[place]
        asked: list[Coroutine[Any, Any, list[Any]]] = [
            self._ask("ingress", await self._ingress(), "exposition", SCRAPE_S),
            self._ask("router", self._router, "exposition", SCRAPE_S),
            *(self._ask_expert(app) for app in apps.values()),
        ]
        ingresses, routers, *engines = await asyncio.gather(*asked)
        own = self._own()
        texts = [own, *(told for told in _told(ingresses) if told[0] != own[0]), *_told(routers)]
        texts += [(name, engine_only(text)) for found in engines for name, text in _told(found)]
        return await asyncio.to_thread(joined, texts)

    async def _ask_expert(self, app: str) -> list[Any]:
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
        return await self._ask("expert", handle, "exposition", SCRAPE_S)

    async def _ask(self, kind: str, handle: Any, method: str, timeout_s: float, *given: Any) -> list[Any]:
        """What each replica answers, or the error that stands for it."""
        try:
            answers = handle.broadcast(method, *given)
            found: list[Any] = await answers.results_async(timeout_s=timeout_s, return_exceptions=True)
        except (TimeoutError, ray.exceptions.RayError, serve_exceptions.RayServeException) as error:
            found = [error]
        for failure in (item for item in found if isinstance(item, BaseException)):
            logger.info("a replica of the %s did not answer %s: %s", kind, method, type(failure).__name__)
            metrics.unscraped.labels(kind).inc()
        return found

    async def _ingress(self) -> Any:
        return await self._handle(*self._here())

    async def _handle(self, deployment: str, app: str) -> Any:
        """A handle, made once: each has its own long poll."""
        if (deployment, app) not in self._handles:
            made = await asyncio.to_thread(self._handle_for, deployment, app)
            self._handles[deployment, app] = made
        return self._handles[deployment, app]


def _told(found: Iterable[Any]) -> list[tuple[str, bytes]]:
    return [(item[0], item[1]) for item in found if not isinstance(item, BaseException)]
