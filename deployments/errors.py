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

from dataclasses import dataclass
from typing import Any, ClassVar

import orjson


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
    default_code = "not_allowed"


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
    """

    def __init__(self, expert: str, why: str) -> None:
        super().__init__(expert, why)
        self.expert = expert
        self.why = why

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
        headers.append(("retry-after", str(max(1, round(wait_s)))))
        headers.append(("retry-after-ms", str(max(1, round(wait_s * 1000)))))
    if error.status == 401:
        headers.append(("www-authenticate", "Bearer"))
    body = orjson.dumps(envelope(error.message, error.type, error.code, error.param))
    return Refusal(error.status, body, tuple(headers))


def from_expert(status: int, body: bytes) -> ApiError:
    """An expert's own 4xx, rewritten: the same words, our string codes.

    vLLM's envelope carries integer codes, and some of its answers carry none at all.
    """
    message, param = _read_message(body)
    error_class = {
        401: Unavailable,
        403: Unavailable,
        404: NotFound,
        405: MethodNotAllowed,
        413: TooLarge,
    }.get(status, BadRequest)
    if status in {401, 403}:  # our own key was refused there: nothing that the client could mend
        return Unavailable("the expert refused this system's credentials", "expert_unavailable")
    code = None
    if error_class is BadRequest and is_context_error(message):
        code = "context_length_exceeded"
    return error_class(message or f"the expert refused the request with status {status}", code, param)


def is_context_error(message: str) -> bool:
    """Whether an engine's refusal says that the prompt does not fit its context window."""
    text = message.lower()
    return "context length" in text or "max_model_len" in text or "maximum model length" in text


def _read_message(body: bytes) -> tuple[str, str | None]:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", None
    error = data.get("error", data) if isinstance(data, dict) else data
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail") or ""
        param = error.get("param")
        return str(message)[:4000], param if isinstance(param, str) else None
    return str(error)[:4000], None
