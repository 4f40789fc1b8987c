"""Read as much of an expert's response as shows that it is valid, while another expert can still be called.

A non-streaming response is read to its end, a stream to its first event, an error to its message.
Knows JSON and server-sent events; nothing of Ray or of HTTP clients.
"""

import asyncio
import re
from dataclasses import dataclass, replace
from typing import Any

import orjson

from deployments.contracts.endpoints import DONE_LINE, Endpoint
from deployments.contracts.errors import (
    ApiError,
    BadRequest,
    ErrorCode,
    ExpertBroken,
    ExpertError,
    ExpertOverloaded,
    ExpertTimeout,
    MethodNotAllowed,
    NotFound,
    TooLarge,
)
from deployments.contracts.protocols import ResponseStream
from deployments.contracts.sse import end_of_events, error_in, first_event, reported_usage

MAX_ERROR_BYTES = 64 * 1024
"""An expert's error body is read this far, no further."""
ERROR_BODY_S = 5.0
"""…and for no longer than this: its status is known."""
MAX_RESPONSE_BYTES = 256 * 1024 * 1024
"""A non-streaming response is held in memory: a longer one is invalid."""
MAX_EVENT_BYTES = 1024 * 1024
"""The first event of a stream must end within this."""
CONTENT = ("choices", "data", "output", "content", "tokens", "input_tokens")
"""Fields of which a non-streaming response has at least one, by its endpoint."""
STATUS_OF_TYPE = {
    "BadRequestError": 400,
    "invalid_request_error": 400,
    "NotFoundError": 404,
    "not_found_error": 404,
    "request_too_large": 413,
    "UnprocessableEntityError": 422,
    "rate_limit_error": 429,
    "NotImplementedError": 501,
    "ServiceUnavailableError": 503,
    "overloaded_error": 503,
}
"""Type of an error in a body → the status that it would have had alone: vLLM's, OpenAI's, Anthropic's."""
OVERLOADED = frozenset({409, 425, 429, 503, 529})
"""Statuses by which an expert that works postpones a request: load, a lock, or Anthropic's overload."""
OF_THE_ACCOUNT = frozenset({401, 402, 403})
"""Statuses that reject our account with a provider, not the request."""
NO_CREDIT = "credit balance is too low"
"""Anthropic's 400 for an account without credit."""
REJECTED_CONTENT = frozenset({"content_filter", "content_policy_violation"})
"""Codes of an error by which a provider rejects the content, as another might not: Azure's and OpenAI's."""
LONGEST_RETRY_S = 3600
HIDDEN_STATUS = re.compile(r"ChatCompletionStreamResponse\b[\s\S]*?'code': (4\d\d)\}\}")
"""In vLLM's streams of `/v1/messages`: their converter fails at an error in the chat stream, and reports its
own failure, in whose text the status remains."""
MAX_BLANK_BYTES = 256
"""The first field of a stream is looked for within these."""
FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How a line of server-sent events may begin."""


async def error_of(name: str, stream: ResponseStream, limit_s: float) -> ExpertError | ApiError:
    """Map a response that is no 2xx to an error; its body is read for a message, as far as it comes."""
    body = stream.head.body
    try:
        if not stream.head.complete:
            async with asyncio.timeout(min(max(limit_s, 0.0), ERROR_BODY_S)):
                async for chunk in stream.rest:
                    body += chunk
                    if len(body) > MAX_ERROR_BYTES:
                        break
    except (TimeoutError, ExpertError):
        pass  # the status is enough
    finally:
        await stream.aclose()
    error = from_expert(name, stream.head.status, body)
    if isinstance(error, ExpertError):
        error.retry_after_s = _retry_after_s(stream)
    return error


async def read_complete(
    name: str, stream: ResponseStream, limit_s: float, endpoint: Endpoint, silence_s: float | None = None
) -> int | None:
    """Read a non-streaming response, so that another expert can replace an incomplete or invalid one.

    Args:
        name: the expert's.
        stream: the response; its head gets the whole body.
        limit_s: time until its end.
        endpoint: what it responds to.
        silence_s: the longest time between two pieces of it; `None` for no bound.

    Returns:
        Its completion tokens, where it reports them.

    Raises:
        ExpertTimeout: it did not end within `limit_s`, or stalled.
        ExpertUnavailable: the expert went away.
        ExpertBroken: it is not a JSON object, or one without content.
        ExpertOverloaded, ApiError: it contains an error of that kind.
    """
    pieces = [stream.head.body]
    size = len(stream.head.body)
    try:
        if not stream.head.complete:
            loop = asyncio.get_running_loop()
            ends = loop.time() + max(limit_s, 0.0)
            async with asyncio.timeout_at(ends) as limit:
                if silence_s is not None:
                    limit.reschedule(min(ends, loop.time() + silence_s))
                async for chunk in stream.rest:
                    if silence_s is not None:
                        limit.reschedule(min(ends, loop.time() + silence_s))
                    pieces.append(chunk)
                    size += len(chunk)
                    if size > MAX_RESPONSE_BYTES:
                        raise ExpertBroken(name, f"the response has more than {MAX_RESPONSE_BYTES} bytes")
    except TimeoutError as error:
        raise ExpertTimeout(name, "no complete response in time") from error
    finally:
        await stream.aclose()
    body = b"".join(pieces)
    stream.head = replace(stream.head, body=body, complete=True)
    binary, content_type = endpoint.binary, dict(stream.head.headers).get(b"content-type", b"")
    if body and binary is not None and binary in content_type:
        return None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ExpertBroken(name, "responded 200 with a body that is not JSON") from error
    if not isinstance(value, dict):
        raise ExpertBroken(name, "responded 200 with JSON that is not an object")
    _check_error(name, value)
    if all(value.get(field) is None for field in CONTENT):
        raise ExpertBroken(name, f"responded 200 with none of the fields {', '.join(CONTENT)}")
    usage = reported_usage(value, endpoint.usage_in)
    return None if usage is None else usage[1]


async def read_first_event(name: str, stream: ResponseStream, limit_s: float) -> None:
    """Read a stream's first event, so that another expert can replace an invalid or failed one.

    Raises:
        ExpertTimeout: it did not come within `limit_s`.
        ExpertUnavailable: the expert went away.
        ExpertBroken: it is no server-sent event, the stream ended before it, or it is an error.
        ExpertOverloaded, ApiError: it is an error of that kind.
    """
    pieces = bytearray(stream.head.body)
    searched = passed = 0
    try:
        async with asyncio.timeout(max(limit_s, 0.0)):
            while not stream.head.complete and len(pieces) < MAX_EVENT_BYTES:
                # Only what is new is searched, and only whole events: their pieces may be many.
                if (end := end_of_events(pieces, searched)) > passed:
                    if first_event(bytes(pieces[passed:end])) is not None:
                        break
                    passed = end
                searched = len(pieces)
                _check_field(name, bytes(pieces[:MAX_BLANK_BYTES]))
                chunk = await anext(stream.rest, None)
                if chunk is None:
                    raise ExpertBroken(name, "the stream ended before its first event")
                pieces += chunk
        body = bytes(pieces)
        _check_field(name, body)
        _check_event(name, first_event(body) or body)
    except TimeoutError as error:
        await stream.aclose()
        raise ExpertTimeout(name, "no first event in time") from error
    except BaseException:
        await stream.aclose()
        raise
    stream.head = replace(stream.head, body=body)


def _check_field(name: str, body: bytes) -> None:
    start = body.lstrip(b"\r\n")
    if start and not any(start.startswith(field) or field.startswith(start) for field in FIELDS):
        raise ExpertBroken(name, "responded 200 with a stream that is no server-sent event")


def _check_event(name: str, event: bytes) -> None:
    for line in event.split(b"\n"):
        if not line.startswith(b"data:"):
            continue
        if line == DONE_LINE:
            raise ExpertBroken(name, "the stream ended before its first event")
        try:
            data = orjson.loads(line[5:])
        except orjson.JSONDecodeError as error:
            raise ExpertBroken(name, "the stream's first event is not JSON") from error
        _check_error(name, data)


def _check_error(name: str, data: Any) -> None:
    """Raise the error that a 2xx response contains, as the status that it would have had alone."""
    error = error_in(data)
    if error is None:
        return
    status = _status_in(error)
    if status is None:
        raise ExpertBroken(name, "responded 200 with an error")
    if error.get("type") == "internal_error":
        error = {"message": "the expert rejected a parameter of the request"}
    raise from_expert(name, status, orjson.dumps({"error": error}))


def _status_in(error: Any) -> int | None:
    """The HTTP status that an error names by its code or by its type."""
    if not isinstance(error, dict):
        return None
    for code in (error.get("code"), error.get("status"), error.get("status_code")):
        number = int(code) if isinstance(code, str) and code.isdecimal() and len(code) == 3 else code
        if isinstance(number, int) and 400 <= number < 600:
            return number
    kind = error.get("type")
    if kind == "internal_error" and (status := HIDDEN_STATUS.search(str(error.get("message")))):
        return int(status[1])
    return STATUS_OF_TYPE.get(kind) if isinstance(kind, str) else None


def _retry_after_s(stream: ResponseStream) -> float | None:
    for header, value in stream.head.headers:
        if header.lower() == b"retry-after" and value.isdigit():
            return float(min(int(value[:9]), LONGEST_RETRY_S))
    return None


def from_expert(expert: str, status: int, body: bytes) -> ApiError | ExpertError:
    """Map an expert's response that is no 2xx to an error: the client's fault, or the expert's.

    vLLM's envelope has integer codes, and some responses have none at all: the message stays, the code
    becomes one of ours.
    """
    if status in OVERLOADED:
        return ExpertOverloaded(expert, f"responded {status}")
    error = _read_error(body)
    if status == 501:
        message = error.message or "this expert does not do that"
        return BadRequest(message, ErrorCode.NOT_SUPPORTED_BY_EXPERT, error.param)
    if status < 400 or status >= 500 or status in OF_THE_ACCOUNT | {407, 408}:
        # A redirect, a fault, or our own credentials rejected: nothing that the client could fix.
        return ExpertBroken(expert, f"responded {status}")
    if status == 400 and NO_CREDIT in error.message:
        return ExpertBroken(expert, "the provider's account has no credit")
    message = error.message or f"the expert rejected the request with status {status}"
    error_class = {404: NotFound, 405: MethodNotAllowed, 413: TooLarge}.get(status, BadRequest)
    code = None
    if status == 451 or error.code in REJECTED_CONTENT:
        code = ErrorCode.CONTENT_POLICY_VIOLATION
    elif error_class is BadRequest and is_context_error(message):
        code = ErrorCode.CONTEXT_LENGTH_EXCEEDED
    return error_class(message, code, error.param)


def fits_elsewhere(error: ApiError) -> bool:
    """Whether an expert's error means that *it* cannot serve the request, while another might."""
    return error.status in {404, 405, 413} or error.code in {
        ErrorCode.CONTENT_POLICY_VIOLATION,
        ErrorCode.CONTEXT_LENGTH_EXCEEDED,
        ErrorCode.NOT_SUPPORTED_BY_EXPERT,
    }


def is_context_error(message: str) -> bool:
    """Whether an engine's message means that the prompt does not fit its context window."""
    text = message.lower()
    return "context length" in text or "max_model_len" in text or "maximum model length" in text


@dataclass(frozen=True, slots=True)
class _Error:
    """What an error body says, as far as it can be read."""

    message: str = ""
    code: str | None = None
    param: str | None = None


def _read_error(body: bytes) -> _Error:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _Error()
    error = (data.get("error") or data) if isinstance(data, dict) else data
    if not isinstance(error, dict):
        return _Error("" if error is None else str(error)[:4000])
    message = error.get("message") or error.get("detail") or ""
    code, param = error.get("code"), error.get("param")
    return _Error(
        str(message)[:4000],
        code if isinstance(code, str) else None,
        param if isinstance(param, str) else None,
    )
