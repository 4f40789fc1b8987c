"""A lean HTTP/1.1 client that times streams; its own processor time would disturb a small machine.

Knows sockets, HTTP and server-sent events as bytes; nothing of workloads or reports. Bodies are not
decoded: the first token and the usage block are searched in the bytes.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from array import array
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

import httptools

FIRST_TOKEN = re.compile(rb'"(?:content|text|reasoning_content|reasoning|delta|arguments)"\s*:\s*"[^"]')
"""A delta with text, in the formats of chat, completions, responses and Anthropic."""
COMPLETION_TOKENS = re.compile(rb'"(?:completion_tokens|output_tokens)"\s*:\s*(\d+)')
ERROR_CODE = re.compile(rb'"code"\s*:\s*"?([\w.-]{1,64})')
TAIL_BYTES = 4096
MOST_HEADER_BYTES = 256
EXPERT_HEADER = b"x-router-expert"


@dataclass(slots=True)
class Outcome:
    """Outcome of one request; times in seconds by `perf_counter`, because uvloop's clock has only ms."""

    sent_at: float
    late_s: float = 0.0
    """Delay after its planned time; 0 in a closed loop."""
    kind: str = ""
    status: int = 0
    error: str = ""
    """Empty for a success; else `status:code`, `transport:…`, `timeout`, `stream:…`."""
    expert: str = ""
    ttft_s: float = 0.0
    e2e_s: float = 0.0
    tokens: int = 0
    chunks: int = 0
    streamed: bool = False
    gaps_s: array[float] = field(default_factory=lambda: array("f"))
    """Time between two arrivals of stream bytes after the first token."""

    @property
    def ok(self) -> bool:
        """Whether the response was complete and no error."""
        return not self.error

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; `None` if there is no second."""
        if not self.streamed or self.tokens < 2:
            return None
        return (self.e2e_s - self.ttft_s) / (self.tokens - 1)


@dataclass(frozen=True, slots=True)
class Target:
    """Address of the endpoint, and the headers of its requests."""

    host: str
    port: int
    prefix: str
    tls: bool
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, url: str, headers: tuple[tuple[str, str], ...] = ()) -> Target:
        """Parse a URL such as `http://127.0.0.1:8000`.

        Raises:
            ValueError: the URL is not http or https, or names no host.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"the URL is {url!r}, expected something like http://127.0.0.1:8000")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.hostname, port, parts.path.rstrip("/"), parts.scheme == "https", headers)

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine by name or address."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")

    def encode(self, path: str, body: bytes) -> bytes:
        """Return one POST request as bytes."""
        lines = [
            f"POST {self.prefix}{path} HTTP/1.1",
            f"host: {self.host}:{self.port}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.WriteTransport | None = None
        self._outcome: Outcome | None = None
        self._done: asyncio.Future[None] | None = None
        self.usable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio: the connection is open."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)
        self.usable = True

    async def send(self, message: bytes, outcome: Outcome, *, timeout_s: float) -> None:
        """Send `message` and fill `outcome` from the response; never raises for a failed request."""
        if self._transport is None or not self.usable:
            raise RuntimeError("this connection is closed")
        self._outcome = outcome
        self._parser = httptools.HttpResponseParser(self)
        self._done = self._loop.create_future()
        self._seam = b""
        self._tail = b""
        self._first_token = False
        self._last_at = outcome.sent_at = perf_counter()
        self._transport.write(message)
        timer = self._loop.call_later(timeout_s, self._fail, "timeout")
        try:
            await self._done
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()
            self._outcome = self._done = None

    def close(self) -> None:
        """Close the connection, which the server sees as a client that left."""
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: bytes of the response."""
        if self._outcome is None:
            self.close()  # a response without a request
            return
        self._now = perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("transport:bad_http")

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: the server, or we, closed it."""
        self.usable = False
        self._fail("transport:connection_lost" if exc is None else f"transport:{type(exc).__name__}")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by httptools: a header."""
        if self._outcome is None:
            return
        lowered = name.lower()
        if lowered == EXPERT_HEADER:
            self._outcome.expert = value[:MOST_HEADER_BYTES].decode("latin-1")
        elif lowered == b"content-type":
            self._outcome.streamed = value.startswith(b"text/event-stream")

    def on_body(self, body: bytes) -> None:
        """Called by httptools: bytes of the body."""
        outcome = self._outcome
        if outcome is None:
            return
        if outcome.streamed:
            self._saw_events(outcome, body)
        self._tail = (self._tail + body)[-TAIL_BYTES:] if len(body) < TAIL_BYTES else body[-TAIL_BYTES:]

    def on_message_complete(self) -> None:
        """Called by httptools: the response ended."""
        outcome, done = self._outcome, self._done
        if outcome is None or done is None or done.done():
            return
        outcome.status = self._parser.get_status_code()
        outcome.e2e_s = self._now - outcome.sent_at
        if not outcome.streamed or not self._first_token:
            outcome.ttft_s = outcome.e2e_s
        if counts := COMPLETION_TOKENS.findall(self._tail):
            outcome.tokens = int(counts[-1])
        elif outcome.streamed:
            outcome.tokens = outcome.chunks
        outcome.error = self._fault(outcome)
        if not self._parser.should_keep_alive():
            self.close()
        done.set_result(None)

    def _saw_events(self, outcome: Outcome, body: bytes) -> None:
        seam = self._seam + body
        outcome.chunks += seam.count(b"\ndata:") + (not self._tail and seam.startswith(b"data:"))
        self._seam = seam[-5:]  # one byte shorter than the pattern, so that nothing counts twice
        if self._first_token:
            outcome.gaps_s.append(self._now - self._last_at)
            self._last_at = self._now
        elif FIRST_TOKEN.search(self._tail + body):
            self._first_token = True
            self._last_at = self._now
            outcome.ttft_s = self._now - outcome.sent_at

    def _fault(self, outcome: Outcome) -> str:
        if not 200 <= outcome.status < 300:
            code = ERROR_CODE.search(self._tail)
            return f"{outcome.status}:{'' if code is None else code.group(1).decode('ascii', 'replace')}"
        if outcome.streamed:
            if b'data: {"error"' in self._tail:
                return "stream:error_event"
            if not self._first_token and not COMPLETION_TOKENS.search(
                self._tail
            ):  # an empty answer has usage
                return "stream:no_token"
        return ""

    def _fail(self, error: str) -> None:
        outcome, done = self._outcome, self._done
        if outcome is None or done is None or done.done():
            return
        outcome.error = error
        outcome.e2e_s = perf_counter() - outcome.sent_at
        self.close()
        done.set_result(None)


class Pool:
    """Connections to one target, opened on demand and kept open."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._idle: list[Connection] = []

    async def send(self, message: bytes, outcome: Outcome, *, timeout_s: float) -> None:
        """Send one request over an idle or a new connection."""
        try:
            connection = await self._take(timeout_s)
        except (OSError, TimeoutError) as error:
            outcome.error = f"transport:{type(error).__name__}"
            return
        await connection.send(message, outcome, timeout_s=timeout_s)
        if connection.usable:
            self._idle.append(connection)

    async def _take(self, timeout_s: float) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        loop = asyncio.get_running_loop()
        context = ssl.create_default_context() if self.target.tls else None
        async with asyncio.timeout(timeout_s):
            _, opened = await loop.create_connection(
                lambda: Connection(loop), self.target.host, self.target.port, ssl=context
            )
        return opened

    def close(self) -> None:
        """Close all idle connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
