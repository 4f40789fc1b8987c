"""What GET answers: models, health, readiness, metrics, our own description."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deployments.config import AUTO
from deployments.contracts.errors import ErrorCode, NotFound
from deployments.ingress.error_handlers import JsonResponse
from deployments.ingress.openapi import document
from deployments.limits.keys import Caller
from deployments.upstream.eligibility import context_window, readiness
from deployments.upstream.registry import ExpertRegistry


class Pages:
    """Handlers over the registry.

    Args:
        caller: whose request it is; raises where a key is needed and missing.
        troubles: parts of the ingress itself that are not well, by name.
        gather_metrics: the metrics of the whole application.
    """

    def __init__(
        self,
        registry: ExpertRegistry,
        *,
        caller: Callable[[Request], Caller | None],
        troubles: Callable[[], dict[str, str]],
        gather_metrics: Callable[[], Awaitable[bytes]],
    ) -> None:
        self._registry = registry
        self._caller = caller
        self._troubles = troubles
        self._gather_metrics = gather_metrics

    def routes(self) -> list[Route]:
        """Where they are found."""
        return [
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{model:path}", self.model, methods=["GET"]),
            Route("/health", self.alive, methods=["GET"]),
            Route("/ready", self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
        ]

    async def models(self, request: Request) -> Response:
        """`auto` first, then the presets, then the experts that the caller may use."""
        names = self._names(self._caller(request))
        return JsonResponse({"object": "list", "data": [self._card(name) for name in names]})

    async def model(self, request: Request) -> Response:
        """One of them."""
        name = request.path_params["model"]
        if name not in self._names(self._caller(request)):
            raise NotFound(f"the model {name[:128]!r} does not exist", ErrorCode.MODEL_NOT_FOUND, "model")
        return JsonResponse(self._card(name))

    async def alive(self, request: Request) -> Response:
        """200: the ingress lives."""
        return JsonResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """200 when the router and every expert that should run can answer."""
        parts = {
            name: {"ready": part.ready, "why": part.why} for name, part in readiness(self._registry).items()
        }
        parts |= {name: {"ready": False, "why": why} for name, why in self._troubles().items()}
        ready = all(part["ready"] for part in parts.values())
        return JsonResponse({"ready": ready, "parts": parts}, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """The whole application's metrics in the text format of Prometheus."""
        return Response(await self._gather_metrics(), media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        """The description of this API."""
        return JsonResponse(document())

    def _names(self, caller: Caller | None) -> list[str]:
        config = self._registry.config
        allowed = None if caller is None else caller.experts
        experts = [name for name in config.experts if allowed is None or name in allowed]
        return [AUTO, *config.presets, *experts]

    def _card(self, name: str) -> dict[str, Any]:
        config = self._registry.config
        if name in config.experts:
            window = context_window(self._registry, name)
        else:
            window = max(
                filter(None, (context_window(self._registry, name) for name in config.experts)), default=None
            )
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "to-router" if name not in config.experts else "expert",
            "max_model_len": window,
        }
