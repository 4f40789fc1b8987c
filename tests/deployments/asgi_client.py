"""One request over bare ASGI: for what an HTTP client cannot do, such as leaving midway."""

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.types import ASGIApp, Message


class Exchange:
    """What was sent to a client, as it came.

    Args:
        pieces: the body, in pieces; `None` for one that never comes.
    """

    def __init__(self, app: ASGIApp, path: str, *pieces: bytes | None, headers: Sequence[Any] = ()) -> None:
        self.sent: list[Message] = []
        self.body_began = asyncio.Event()
        self._pieces = list(pieces)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": list(headers),
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def disconnect(self) -> None:
        """The client goes: Serve cancels the handler."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _receive(self) -> Message:
        if self._pieces and self._pieces[0] is not None:
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}
        await asyncio.Event().wait()
        raise AssertionError

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body":
            self.body_began.set()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])
