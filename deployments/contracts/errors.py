"""One table from error to HTTP status, and the one envelope of every error.

ApiError                      returned to the client with its status
├── BadRequest          400   `param` names the field
├── NotAuthenticated    401
├── NotAllowed          403
├── NotFound            404
├── MethodNotAllowed    405
├── SlowUpload          408
├── TooLarge            413
├── UnsupportedMedia    415
├── TooMany             429   a key's limit, or a full queue
├── Unavailable         503   no replica, open circuit breaker, or still starting
└── DeadlineExceeded    504

ExpertError                   one attempt on one expert failed; the next may be called
├── ExpertUnavailable         the replica went away before the first byte
│   └── ExpertUnreachable     no replica accepted the request
├── ExpertTimeout             no first byte within the attempt's share of the deadline
├── ExpertOverloaded          rejected for load (429, 503)
└── ExpertBroken              status 5xx, or a body that is no response of the API

Imports neither Ray nor vLLM. Constructor arguments are positional and reach `Exception`, so that
errors survive the trip between processes.
"""

import math
import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

import orjson

RETRY_JITTER = 0.25
"""Retry-After is up to this share longer than the wait that it stands for, at random."""
LONGEST_WAIT_OF_CLIENTS_S = 120.0
"""The openai client does not wait longer than this for a retry: it would retry at once."""


class ErrorCode(StrEnum):
    """Every code that an error of the API can have; `docs/errors.md` explains each."""

    INVALID_REQUEST = "invalid_request"
    INVALID_JSON = "invalid_json"
    MISSING_FIELD = "missing_field"
    INVALID_TYPE = "invalid_type"
    INVALID_VALUE = "invalid_value"
    UNKNOWN_FIELD = "unknown_field"
    FORBIDDEN_FIELD = "forbidden_field"
    UNKNOWN_EXPERT = "unknown_expert"
    TOO_MANY_MESSAGES = "too_many_messages"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    CONTENT_POLICY_VIOLATION = "content_policy_violation"
    NO_ELIGIBLE_EXPERT = "no_eligible_expert"
    UNSUPPORTED_WITH_AUTO = "unsupported_with_auto"
    NOT_SUPPORTED_BY_EXPERT = "not_supported_by_expert"
    HEADERS_TOO_LARGE = "headers_too_large"
    INVALID_API_KEY = "invalid_api_key"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    HOST_NOT_ALLOWED = "host_not_allowed"
    CROSS_SITE_REQUEST = "cross_site_request"
    PAGE_NOT_ALLOWED = "page_not_allowed"
    NOT_FOUND = "not_found"
    MODEL_NOT_FOUND = "model_not_found"
    PATH_NOT_FOUND = "path_not_found"
    REQUEST_NOT_FOUND = "request_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UPLOAD_TIMEOUT = "upload_timeout"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    TOKENS_LIMIT_EXCEEDED = "tokens_limit_exceeded"
    CONCURRENCY_LIMIT_EXCEEDED = "concurrency_limit_exceeded"
    BUDGET_EXCEEDED = "budget_exceeded"
    QUEUE_FULL = "queue_full"
    EXPERT_OVERLOADED = "expert_overloaded"
    INTERNAL_ERROR = "internal_error"
    UNAVAILABLE = "unavailable"
    BODIES_IN_FLIGHT = "bodies_in_flight"
    QUEUE_TIMEOUT = "queue_timeout"
    EXPERT_STARTING = "expert_starting"
    STARTING = "starting"
    EXPERT_UNAVAILABLE = "expert_unavailable"
    NO_EXPERT_AVAILABLE = "no_expert_available"
    KEYS_UNAVAILABLE = "keys_unavailable"
    TRY_AGAIN = "try_again"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    STREAM_INTERRUPTED = "stream_interrupted"


class ApiError(Exception):
    """An error that the client may see as it is."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[ErrorCode] = ErrorCode.INTERNAL_ERROR

    def __init__(
        self,
        message: str,
        code: ErrorCode | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, code, param, retry_after_s)
        self.message = message
        self.code = self.default_code if code is None else code
        self.param = param
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class BadRequest(ApiError):
    status = 400
    type = "invalid_request_error"
    default_code = ErrorCode.INVALID_REQUEST


class NotAuthenticated(ApiError):
    status = 401
    type = "authentication_error"
    default_code = ErrorCode.INVALID_API_KEY


class NotAllowed(ApiError):
    status = 403
    type = "permission_error"
    default_code = ErrorCode.MODEL_NOT_ALLOWED


class NotFound(ApiError):
    status = 404
    type = "invalid_request_error"
    default_code = ErrorCode.NOT_FOUND


class MethodNotAllowed(ApiError):
    status = 405
    type = "invalid_request_error"
    default_code = ErrorCode.METHOD_NOT_ALLOWED


class SlowUpload(ApiError):
    status = 408
    type = "invalid_request_error"
    default_code = ErrorCode.UPLOAD_TIMEOUT


class TooLarge(ApiError):
    status = 413
    type = "invalid_request_error"
    default_code = ErrorCode.BODY_TOO_LARGE


class UnsupportedMedia(ApiError):
    status = 415
    type = "invalid_request_error"
    default_code = ErrorCode.UNSUPPORTED_MEDIA_TYPE


class TooMany(ApiError):
    status = 429
    type = "rate_limit_error"
    default_code = ErrorCode.RATE_LIMIT_EXCEEDED


class Unavailable(ApiError):
    status = 503
    type = "server_error"
    default_code = ErrorCode.UNAVAILABLE


class DeadlineExceeded(ApiError):
    status = 504
    type = "timeout_error"
    default_code = ErrorCode.DEADLINE_EXCEEDED


class ExpertError(Exception):
    """One attempt on one expert failed before its first byte.

    Args:
        expert: its name.
        why: for the operator and the decision record; never shown to a client as it is.
        retry_after_s: seconds until the expert accepts requests again, where it says so.
    """

    def __init__(self, expert: str, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(expert, why, retry_after_s)
        self.expert = expert
        self.why = why
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.expert}: {self.why}"


class ExpertUnavailable(ExpertError):
    """The replica went away before the first byte."""


class ExpertUnreachable(ExpertUnavailable):
    """No replica accepted the request: the request itself cannot be the cause."""


class ExpertTimeout(ExpertError):
    """No first byte in time."""


class ExpertOverloaded(ExpertError):
    """The expert rejected the request for load."""


class ExpertBroken(ExpertError):
    """Status 5xx, or a body that is no response of the API."""


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error as it goes onto the wire."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def envelope(message: str, type_: str, code: ErrorCode, param: str | None = None) -> dict[str, Any]:
    """The OpenAI error body."""
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


def error_response(error: ApiError) -> ErrorResponse:
    """The response to a request that ends in `error`."""
    headers: list[tuple[str, str]] = []
    if error.status in {429, 503} or error.retry_after_s is not None:
        wait_s = 1.0 if error.retry_after_s is None else error.retry_after_s
        # Clients that were rejected together would return together.
        later_s = min(wait_s * (1.0 + RETRY_JITTER * random.random()), max(wait_s, LONGEST_WAIT_OF_CLIENTS_S))
        headers.append(("retry-after", str(max(1, math.ceil(wait_s), math.floor(later_s)))))
        headers.append(("retry-after-ms", str(max(1, math.ceil(later_s * 1000)))))
    if error.status == 504 or (error.retry_after_s or 0.0) > LONGEST_WAIT_OF_CLIENTS_S:
        headers.append(("x-should-retry", "false"))
    if error.status == 401:
        headers.append(("www-authenticate", "Bearer"))
    body = orjson.dumps(envelope(error.message, error.type, error.code, error.param))
    return ErrorResponse(error.status, body, tuple(headers))
