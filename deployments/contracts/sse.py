"""Server-sent events: framing, the end of a stream, and the usage that a response reports.

Pure: bytes in, values out.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from deployments.contracts.endpoints import DONE_LINE, Endpoint
from deployments.contracts.messages import Headers

DONE = DONE_LINE + b"\n\n"
LONGEST_LAST_LINE = 32
"""Bytes kept of what came before a chunk, so that a last line cut in two is noticed."""
MAX_TOKENS = 1_000_000_000
"""More than any response has."""
EVENT = re.compile(rb".*?(?:\r?\n\r?\n|\Z)", re.DOTALL)


BLANK_LINES = (b"\n\n", b"\r\n\r\n")
"""What ends an event."""


def is_event_stream(headers: Headers) -> bool:
    """Whether a response is a stream of server-sent events, by its content type."""
    return any(name.lower() == b"content-type" and b"event-stream" in value for name, value in headers)


def end_of_events(data: bytes | bytearray, start: int = 0) -> int:
    """Length of the whole events at the start of `data`; the rest is an unfinished one.

    Args:
        data: events, and the beginning of one.
        start: bytes that have been searched before, when no event ended in them.
    """
    start = max(0, start - 3)  # a blank line may have begun in them
    return max(at + len(blank) if (at := data.rfind(blank, start)) >= 0 else 0 for blank in BLANK_LINES)


def first_event(body: bytes) -> bytes | None:
    """The first whole event with content; comments and blank lines do not count."""
    *events, _ = body.replace(b"\r\n", b"\n").split(b"\n\n")
    return next((event for event in events if event.strip() and not event.startswith(b":")), None)


def without_usage_events(events: bytes) -> bytes:
    """Whole events without those that only report usage: for a client that did not request it."""
    if b'"usage"' not in events:
        return events
    return b"".join(event for event in EVENT.findall(events) if not _is_usage_only(event))


def _is_usage_only(event: bytes) -> bool:
    if b'"usage"' not in event or not event.startswith(b"data:"):
        return False
    data = _json(event[5:])
    return isinstance(data, dict) and data.get("choices") == [] and isinstance(data.get("usage"), dict)


def error_in(data: Any) -> Any:
    """The error that a body or an event is instead of a response; `None` where it is none.

    OpenAI's and Anthropic's envelopes, the bare object of older vLLM, and a failed response.
    """
    if not isinstance(data, dict):
        return None
    if data.get("error"):
        return data["error"]
    if data.get("object") == "error" or data.get("type") == "error":
        return data
    response = data.get("response") if data.get("type") == "response.failed" else None
    return (response.get("error") or response) if isinstance(response, dict) else None


class StreamObserver:
    """What was seen of a response while it passed: for accounting, never to change it."""

    def __init__(self, endpoint: Endpoint, *, streamed: bool) -> None:
        self._endpoint = endpoint
        self._last_lines = tuple(
            line + end_of_line for line in endpoint.last_lines for end_of_line in (b"\n", b"\r")
        )
        self.ended = not streamed
        self.streamed = streamed
        self.tail = b""
        self.events = 0
        self.outcome = "disconnected"
        self.failed = False
        """Whether the expert failed midway: it broke off, or sent an error of its own."""
        self._usage: tuple[int, int] | None = None
        self._text_bytes = 0

    def saw(self, chunk: bytes) -> None:
        """Bytes pass: keep the end, count events and text, read usage, notice the last event."""
        self.events += chunk.count(b"data: ")
        self.failed = self.failed or _has_failure(chunk)
        seam = self.tail + chunk
        self.ended = self.ended or any(line in seam for line in self._last_lines)
        self.tail = seam[-LONGEST_LAST_LINE:]
        for line in chunk.split(b"\n"):
            if line.startswith(b"data:"):
                self._read(line[5:])

    def usage(self) -> tuple[int, int] | None:
        """(prompt, completion) tokens as the expert reported them last; `None` where it did not."""
        if not self.streamed:
            return reported_usage(_json(self.tail), self._endpoint.usage_in)
        return self._usage

    def tokens_counted(self) -> int:
        """Events that carried a token; 0 for a response that was no stream."""
        return max(0, self.events - self._endpoint.frames) if self.streamed else 0

    def most_tokens(self) -> int:
        """The most completion tokens that the text seen can have: each has a byte or an event of its own."""
        return max(self.tokens_counted(), self._text_bytes) if self.streamed else len(self.tail)

    def _read(self, data: bytes) -> None:
        event = _json(data)
        if not isinstance(event, dict):
            return
        self._usage = reported_usage(event, self._endpoint.usage_in, self._usage)
        self._text_bytes += _text_bytes(event.get("delta"))
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._text_bytes += _text_bytes(choice.get("delta", choice.get("text")))


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _text_bytes(value: Any) -> int:
    """Bytes of all texts in a delta."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, dict):
        return sum(_text_bytes(item) for item in value.values())
    return sum(_text_bytes(item) for item in value) if isinstance(value, list) else 0


def reported_usage(
    event: Any, usage_in: str | None, known: tuple[int, int] | None = None
) -> tuple[int, int] | None:
    """(prompt, completion) tokens in a body or an event; what it leaves out stays as known."""
    usage = _usage_block(event, usage_in)
    if usage is None:
        return known
    prompt = usage.get("prompt_tokens", usage.get("input_tokens", known and known[0]))
    completion = usage.get("completion_tokens", usage.get("output_tokens", 0))
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return known
    prompt, completion = _clamped(prompt), _clamped(completion)
    if "input_tokens" in usage:
        # Anthropic counts what its cache wrote and read beside the other input.
        cached = (usage.get(name) for name in ("cache_creation_input_tokens", "cache_read_input_tokens"))
        prompt += sum(_clamped(number) for number in cached if isinstance(number, int))
    return prompt, completion


def _clamped(tokens: int) -> int:
    """A number of tokens that counters and budgets can take, whatever an expert reports."""
    return min(max(tokens, 0), MAX_TOKENS)


def _has_failure(events: bytes) -> bool:
    """Whether an expert's own error is among events; one that names the request as its cause is not."""
    if b'"error"' not in events and b"response.failed" not in events:
        return False
    for line in events.split(b"\n"):
        if line.startswith(b"data:") and (error := error_in(_json(line[5:]))) is not None:
            code = error.get("code") if isinstance(error, dict) else None
            if not (isinstance(code, int) and 400 <= code < 500):
                return True
    return False


def _usage_block(event: Any, usage_in: str | None) -> Mapping[str, Any] | None:
    """`usage` of a whole body or an event, or of the object of the event that contains it."""
    if not isinstance(event, dict):
        return None
    usage = event.get("usage")
    if isinstance(usage, dict):
        return usage
    return None if usage_in is None else _usage_block(event.get(usage_in), None)
