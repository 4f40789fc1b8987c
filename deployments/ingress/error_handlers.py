"""Errors on their way to the client: every one wears the OpenAI envelope and the request's id."""

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from deployments.contracts.errors import ApiError, BadRequest, MethodNotAllowed, NotFound, refusal
from deployments.ingress.headers import request_id

logger = logging.getLogger("ray.serve")


class JsonResponse(Response):
    """A JSON answer of our own."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


class Refused(Response):
    """One of our own error answers."""

    def __init__(self, error: ApiError, headers: Mapping[str, str] | None = None) -> None:
        answer = refusal(error)
        super().__init__(
            answer.body,
            answer.status,
            headers={**dict(answer.headers), **(headers or {})},
            media_type="application/json",
        )


async def refuse(request: Request, error: Exception) -> Response:
    """A refusal of ours."""
    if not isinstance(error, ApiError):
        return await refuse_unforeseen(request, error)
    return Refused(error, {"x-request-id": request_id(request)})


async def refuse_http(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, no such method, a request that it cannot read."""
    status = getattr(error, "status_code", 500)
    id_ = {"x-request-id": request_id(request)}
    if status == 405:
        allowed: Mapping[str, str] = getattr(error, "headers", None) or {}
        return Refused(MethodNotAllowed(f"{request.method[:32]} is not supported here"), {**allowed, **id_})
    if status == 404:
        return Refused(NotFound(f"there is no path {request.url.path[:256]!r} here", "path_not_found"), id_)
    return Refused(BadRequest(str(getattr(error, "detail", "")) or "the request cannot be read"), id_)


async def refuse_unforeseen(request: Request, error: Exception) -> Response:
    """A fault of ours: the client gets the request id, the log the traceback."""
    id_ = request_id(request)
    logger.error("unforeseen error in request %s", id_, exc_info=error)
    return Refused(ApiError(f"internal error; request id {id_}"), {"x-request-id": id_})


HANDLERS: Mapping[Any, Any] = {
    ApiError: refuse,
    HTTPException: refuse_http,
    Exception: refuse_unforeseen,
}
