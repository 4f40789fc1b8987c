"""`/health`, `/ready`, `/metrics` and `/openapi.json`."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.ingress.openapi import document
from deployments.upstream.eligibility import readiness
from deployments.upstream.registry import ExpertRegistry


def routes(
    registry: ExpertRegistry,
    problems: Callable[[], Mapping[str, str]],
    gather_metrics: Callable[[], Awaitable[bytes]],
) -> list[Route]:
    """What probes and scrapers read.

    Args:
        registry: the state of router and experts.
        problems: returns the parts of the ingress itself that are not ready, with the reasons.
        gather_metrics: returns the metrics of the whole application.
    """

    async def health(request: Request) -> Response:
        """200: the process responds."""
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> Response:
        """200 when the router and every expert that should run are ready, else 503."""
        parts = {name: {"ready": part.ready, "why": part.why} for name, part in readiness(registry).items()}
        parts |= {name: {"ready": False, "why": why} for name, why in problems().items()}
        is_ready = all(part["ready"] for part in parts.values())
        return JSONResponse({"ready": is_ready, "parts": parts}, 200 if is_ready else 503)

    async def metrics(request: Request) -> Response:
        """The text format of Prometheus."""
        return Response(await gather_metrics(), media_type="text/plain; version=0.0.4")

    async def openapi(request: Request) -> Response:
        """The description of the HTTP API."""
        return JSONResponse(document())

    handlers = {"/health": health, "/ready": ready, "/metrics": metrics, "/openapi.json": openapi}
    return [Route(path, handler, methods=["GET"]) for path, handler in handlers.items()]
