"""`/health`, `/ready`, `/metrics` and `/openapi.json`."""

import re
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.contracts.errors import ApiError
from deployments.ingress.openapi import document
from deployments.limits.keys import Caller
from deployments.upstream.eligibility import Part, readiness
from deployments.upstream.registry import ExpertRegistry

FOLDERS = re.compile(r"[a-zA-Z][\w+.-]*://[^\s'\",;()]*/|(?<![\w.])/[^\s'\",;:()]*/")
"""Leading folders of an absolute path, or all of a URL up to its last slash."""
LONGEST_REASON = 400
NEEDS_KEY = "a key shows the reason"


def routes(
    registry: ExpertRegistry,
    caller: Callable[[Request], Caller | None],
    problems: Callable[[], Mapping[str, str]],
    gather_metrics: Callable[[], Awaitable[bytes]],
) -> list[Route]:
    """What probes and scrapers read.

    Args:
        registry: the state of router and experts.
        caller: returns the key of a request, `None` where keys are off; raises where a key is missing.
        problems: returns the parts of the ingress itself that are not ready, with the reasons.
        gather_metrics: returns the metrics of the whole application.
    """

    async def health(request: Request) -> Response:
        """200: the process responds."""
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> Response:
        """200 when the router and every expert that should run are ready, else 503."""
        known = readiness(registry) | {name: Part(False, why) for name, why in problems().items()}
        is_ready = all(part.ready for part in known.values())
        visible = _visible(known, registry, request)
        parts = {name: {"ready": part.ready, "why": short(part.why)} for name, part in visible.items()}
        return JSONResponse({"ready": is_ready, "parts": parts}, 200 if is_ready else 503)

    def _visible(known: Mapping[str, Part], registry: ExpertRegistry, request: Request) -> Mapping[str, Part]:
        """The parts that a caller may see: without a key, where keys are on, no expert's name."""
        try:
            key = caller(request)
        except ApiError:
            experts_ready = all(part.ready for name, part in known.items() if name in registry.experts)
            return {
                **{
                    name: part if part.ready or name == "keys" else Part(False, NEEDS_KEY)
                    for name, part in known.items()
                    if name not in registry.experts
                },
                "experts": Part(experts_ready, "" if experts_ready else NEEDS_KEY),
            }
        if key is None or key.experts is None:
            return known
        hidden = registry.experts.keys() - set(key.experts)
        return {name: part for name, part in known.items() if name not in hidden}

    async def metrics(request: Request) -> Response:
        """The text format of Prometheus."""
        return Response(await gather_metrics(), media_type="text/plain; version=0.0.4")

    async def openapi(request: Request) -> Response:
        """The description of the HTTP API."""
        return JSONResponse(document())

    handlers = {"/health": health, "/ready": ready, "/metrics": metrics, "/openapi.json": openapi}
    return [Route(path, handler, methods=["GET"]) for path, handler in handlers.items()]


def short(why: str) -> str:
    """A reason for clients: one line without the lines of a traceback and without folders."""
    return FOLDERS.sub("…/", why.strip().partition("\n")[0])[:LONGEST_REASON]
