"""Responses to HTTP/1.0 clients, such as nginx with its default upstream protocol.

HTTP/1.0 has no chunks, so a body of unknown length ends with the connection. Uvicorn frames every such body
in chunks, whatever the client's version, and has no setting for it: this sets what it reads before it writes.
"""

from typing import Any

from starlette.types import Message, Scope, Send


def without_chunks(scope: Scope, send: Send) -> Send:
    """Return what sends a response: to an HTTP/1.0 client unframed, else `send` itself.

    Args:
        scope: the request's.
        send: the server's own.
    """
    response = getattr(send, "__self__", None)
    if scope.get("http_version") != "1.0" or not hasattr(response, "chunked_encoding"):
        return send
    uvicorns: Any = response
    unframed = False

    async def send_unframed(message: Message) -> None:
        nonlocal unframed
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message["headers"]}
            unframed = b"content-length" not in names
            if unframed:
                headers = [*message["headers"], (b"connection", b"close")]
                message = {**message, "headers": headers}
                uvicorns.chunked_encoding = False
        elif unframed:
            uvicorns.expected_content_length = len(message.get("body", b""))
        await send(message)

    return send_unframed
