"""One table from error to HTTP status, and the one envelope that every refusal wears.

ApiError                      answered with its own status
├── BadRequest          400   `param` names the field
├── NotAuthenticated    401
├── NotAllowed          403
├── NotFound            404
├── MethodNotAllowed    405
├── SlowUpload          408
├── TooLarge            413
├── TooMany             429   a key's limit or our full queue
├── Unavailable         503   no replica, breaker open, still starting
└── DeadlineExceeded    504

ExpertError                   one attempt on one expert failed; the next may be asked
├── ExpertUnavailable         no replica took it, or it went away before the first byte
├── ExpertTimeout             no first byte within the attempt's share of the deadline
├── ExpertOverloaded          it refused for load (429, 503)
└── ExpertBroken              it answered 5xx, or what is no answer

Imports neither Ray nor vLLM. Constructor arguments are positional and reach `Exception`, so that
errors survive the trip between processes.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

LONGEST_WAIT_OF_CLIENTS_S = 120.0
"""The openai client does not wait longer than this for a retry: it would come back at once."""


class ApiError(Exception):
    """A refusal that the client may see as it is."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, code, param, retry_after_s)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class BadRequest(ApiError):
    status = 400
    type = "invalid_request_error"
    default_code = "invalid_request"


class NotAuthenticated(ApiError):
    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class NotAllowed(ApiError):
    status = 403
    type = "permission_error"
    default_code = "model_not_allowed"


class NotFound(ApiError):
    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class MethodNotAllowed(ApiError):
    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"


class SlowUpload(ApiError):
    status = 408
    type = "invalid_request_error"
    default_code = "upload_timeout"


class TooLarge(ApiError):
    status = 413
    type = "invalid_request_error"
    default_code = "body_too_large"


class TooMany(ApiError):
    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class Unavailable(ApiError):
    status = 503
    type = "server_error"
    default_code = "unavailable"


class DeadlineExceeded(ApiError):
    status = 504
    type = "timeout_error"
    default_code = "deadline_exceeded"


class ExpertError(Exception):
    """One attempt on one expert failed before its first byte.

    Args:
        expert: which one.
        why: for the operator and the decision record; never shown to a client as it is.
        retry_after_s: when it said that it could be asked again.
    """

    def __init__(self, expert: str, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(expert, why, retry_after_s)
        self.expert = expert
        self.why = why
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.expert}: {self.why}"


class ExpertUnavailable(ExpertError):
    """No replica took the request, or it went away before the first byte."""


class ExpertTimeout(ExpertError):
    """No first byte in time."""


class ExpertOverloaded(ExpertError):
    """It refused for load."""


class ExpertBroken(ExpertError):
    """It answered 5xx, or something that is no answer."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as it goes onto the wire."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def envelope(message: str, type_: str, code: str, param: str | None = None) -> dict[str, Any]:
    """The OpenAI error body."""
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


def refusal(error: ApiError) -> Refusal:
    """The answer to a request that ends in `error`."""
    headers: list[tuple[str, str]] = []
    if error.status in {429, 503} or error.retry_after_s is not None:
        wait_s = 1.0 if error.retry_after_s is None else error.retry_after_s
        headers.append(("retry-after", str(max(1, math.ceil(wait_s)))))
        headers.append(("retry-after-ms", str(max(1, math.ceil(wait_s * 1000)))))
    if error.status == 504 or (error.retry_after_s or 0.0) > LONGEST_WAIT_OF_CLIENTS_S:
        headers.append(("x-should-retry", "false"))
    if error.status == 401:
        headers.append(("www-authenticate", "Bearer"))
    body = orjson.dumps(envelope(error.message, error.type, error.code, error.param))
    return Refusal(error.status, body, tuple(headers))
