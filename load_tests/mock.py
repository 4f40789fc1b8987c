"""A back end with almost no cost: an OpenAI-compatible server with made-up answers.

    python -m load_tests.mock --port 9100 [--first-ms 0] [--token-ms 0]

Every proxy of a comparison has the same one. An answer has `max_tokens` tokens, one event each; with
`--token-ms 0` each is still written separately, one per turn of the event loop, as an engine does.
Loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any, cast

import httptools
import uvloop

MODEL = "mock"
DEFAULT_TOKENS = 16
MOST_TOKENS = 65536


def event(delta: dict[str, Any], finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    """Return one server-sent event of a chat completion, as vLLM writes it."""
    choices = [] if usage else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    chunk: dict[str, Any] = {
        "id": "chatcmpl-mock",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": MODEL,
        "choices": choices,
    }
    if usage:
        chunk["usage"] = usage
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def usage_of(tokens: int) -> dict[str, int]:
    """Return a usage block."""
    return {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": tokens + 10}


def completion(tokens: int) -> bytes:
    """Return the body of a non-streaming response."""
    message = {"role": "assistant", "content": "word " * tokens}
    return json.dumps(
        {
            "id": "chatcmpl-mock",
            "object": "chat.completion",
            "created": 1700000000,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": usage_of(tokens),
        }
    ).encode()


ROLE = event({"role": "assistant", "content": ""})
TOKEN = event({"content": "word "})
LAST = event({}, finish="stop")
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
MODELS = json.dumps(
    {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "mock", "max_model_len": 8192}]}
).encode()


class Mock(asyncio.Protocol):
    """One connection."""

    def __init__(self, first_s: float, token_s: float) -> None:
        self._first_s, self._token_s = first_s, token_s
        self._transport: asyncio.WriteTransport | None = None
        self._task: asyncio.Task[None] | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio: a client connected."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: the client left."""
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: bytes of a request."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._write(_response(400, b'{"error":{"message":"not HTTP"}}'))
            if self._transport is not None:
                self._transport.close()

    def on_message_begin(self) -> None:
        """Called by httptools: a request begins."""
        self._path = self._body = b""

    def on_url(self, url: bytes) -> None:
        """Called by httptools: its target."""
        self._path += url

    def on_body(self, body: bytes) -> None:
        """Called by httptools: bytes of its body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Called by httptools: the request is complete."""
        if self._parser.get_method() == b"GET":
            self._write(_response(200, MODELS))
            return
        try:
            request = json.loads(self._body)
            tokens = min(int(request.get("max_tokens") or DEFAULT_TOKENS), MOST_TOKENS)
        except (ValueError, TypeError, AttributeError):
            self._write(_response(400, b'{"error":{"message":"not a request","code":"bad_request"}}'))
            return
        if request.get("stream"):
            counted = bool((request.get("stream_options") or {}).get("include_usage"))
            self._task = asyncio.get_running_loop().create_task(self._stream(tokens, counted=counted))
        elif self._first_s or self._token_s:
            self._task = asyncio.get_running_loop().create_task(self._later(tokens))
        else:
            self._write(_response(200, completion(tokens)))

    async def _later(self, tokens: int) -> None:
        await asyncio.sleep(self._first_s + tokens * self._token_s)
        self._write(_response(200, completion(tokens)))

    async def _stream(self, tokens: int, *, counted: bool) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time() + self._first_s
        self._write(STREAM_HEAD)
        if self._first_s:
            await asyncio.sleep(self._first_s)
        self._write(_chunk(ROLE))
        for token in range(tokens):
            self._write(_chunk(TOKEN))
            # Paced by the clock, so that a late event loop does not delay the following tokens.
            await asyncio.sleep(max(0.0, started + (token + 1) * self._token_s - loop.time()))
        end = _chunk(LAST) + (_chunk(event({}, usage=usage_of(tokens))) if counted else b"")
        self._write(end + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _response(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def serve(port: int, first_s: float, token_s: float) -> asyncio.Server:
    """Listen on the loopback address."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Mock(first_s, token_s), "127.0.0.1", port)


def main(arguments: list[str] | None = None) -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser(prog="python -m load_tests.mock", description=__doc__)
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--first-ms", type=float, default=0.0)
    parser.add_argument("--token-ms", type=float, default=0.0)
    options = parser.parse_args(arguments)

    async def run() -> None:
        server = await serve(options.port, options.first_ms / 1000, options.token_ms / 1000)
        await server.serve_forever()

    uvloop.run(run())


if __name__ == "__main__":
    main()
