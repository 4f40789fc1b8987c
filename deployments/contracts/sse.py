"""Server-sent events: framing, the end of a stream, and the usage that a response reports.

Pure: bytes in, values out.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from deployments.contracts.endpoints import DONE_LINE, Endpoint
from deployments.contracts.messages import Headers

DONE = DONE_LINE + b"\n\n"
LONGEST_LAST_LINE = 32
"""Bytes kept of what came before a chunk, so that a last line cut in two is noticed."""
TAIL_BYTES = 16 * 1024
"""Enough of a stream's end to read its usage."""


def is_event_stream(headers: Headers) -> bool:
    """Whether a response is a stream of server-sent events, by its content type."""
    return any(name.lower() == b"content-type" and b"event-stream" in value for name, value in headers)


def end_of_events(data: bytes) -> int:
    """Length of the whole events at the start of `data`; the rest is an unfinished one."""
    return max(data.rfind(blank) + len(blank) if blank in data else 0 for blank in (b"\n\n", b"\r\n\r\n"))


def first_event(body: bytes) -> bytes | None:
    """The first whole event with content; comments and blank lines do not count."""
    *events, _ = body.replace(b"\r\n", b"\n").split(b"\n\n")
    return next((event for event in events if event.strip() and not event.startswith(b":")), None)


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

    def saw(self, chunk: bytes) -> None:
        """Bytes pass: keep the end, count the events, notice the last one."""
        self.events += chunk.count(b"data: ")
        seam = self.tail[-LONGEST_LAST_LINE:] + chunk
        self.ended = self.ended or any(line in seam for line in self._last_lines)
        self.tail = (self.tail + chunk)[-TAIL_BYTES:]

    def usage(self) -> tuple[int, int] | None:
        """(prompt, completion) tokens as the expert reported them; `None` where it did not."""
        if not self.streamed:
            return self._usage_in(self.tail)
        for line in reversed(self.tail.split(b"\n")):
            if line.startswith(b"data: {") and (usage := self._usage_in(line[6:])):
                return usage
        return None

    def tokens_counted(self) -> int:
        """Events that carried a token; 0 for a response that was no stream."""
        return max(0, self.events - self._endpoint.frames) if self.streamed else 0

    def _usage_in(self, data: bytes) -> tuple[int, int] | None:
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError:
            return None
        usage = _usage_block(event, self._endpoint.usage_in)
        if usage is None:
            return None
        prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
        completion = usage.get("completion_tokens", usage.get("output_tokens", 0))
        return (prompt, completion) if isinstance(prompt, int) and isinstance(completion, int) else None


def _usage_block(event: Any, usage_in: str | None) -> Mapping[str, Any] | None:
    """`usage` of a whole body or an event, or of the object of the event that contains it."""
    if not isinstance(event, dict):
        return None
    usage = event.get("usage")
    if isinstance(usage, dict):
        return usage
    return None if usage_in is None else _usage_block(event.get(usage_in), None)
