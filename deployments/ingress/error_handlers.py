"""Exceptions to HTTP responses: each has the OpenAI envelope and the request's id."""

import logging
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from deployments.contracts.errors import (
    ApiError,
    BadRequest,
    ErrorCode,
    MethodNotAllowed,
    NotFound,
    error_response,
)
from deployments.ingress.request_ids import request_id

logger = logging.getLogger("ray.serve")


class ErrorBody(Response):
    """An error of the API as a response."""

    def __init__(self, error: ApiError, headers: Mapping[str, str] | None = None) -> None:
        response = error_response(error)
        super().__init__(
            response.body,
            response.status,
            headers={**dict(response.headers), **(headers or {})},
            media_type="application/json",
        )


async def on_api_error(request: Request, error: Exception) -> Response:
    """Return an error of the API with its own status."""
    if not isinstance(error, ApiError):
        return await on_unforeseen(request, error)
    return ErrorBody(error, {"x-request-id": request_id(request)})


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Return Starlette's own errors: no such path, no such method, a request that it cannot read."""
    status = getattr(error, "status_code", 500)
    id_ = {"x-request-id": request_id(request)}
    if status == 405:
        allowed: Mapping[str, str] = getattr(error, "headers", None) or {}
        return ErrorBody(MethodNotAllowed(f"{request.method[:32]} is not supported here"), {**allowed, **id_})
    if status == 404:
        return ErrorBody(
            NotFound(f"there is no path {request.url.path[:256]!r} here", ErrorCode.PATH_NOT_FOUND), id_
        )
    return ErrorBody(BadRequest(str(getattr(error, "detail", "")) or "the request cannot be read"), id_)


async def on_unforeseen(request: Request, error: Exception) -> Response:
    """Return an internal error: the client gets the request id, the log the traceback."""
    id_ = request_id(request)
    logger.error("unforeseen error in request %s", id_, exc_info=error)
    return ErrorBody(ApiError(f"internal error; request id {id_}"), {"x-request-id": id_})


HANDLERS: Mapping[Any, Any] = {
    ApiError: on_api_error,
    HTTPException: on_http_exception,
    Exception: on_unforeseen,
}
