"""A variant of a model as an expert of its own: its bodies on the way in, its name on the way out.

Wraps the client of the engine, so that dispatch, plans and discovery know nothing of variants. Only
responses in which the name must change are read; errors and bytes that are not JSON pass untouched.
"""

from collections.abc import AsyncGenerator
from dataclasses import replace

import orjson

from deployments.contracts.endpoints import ENDPOINTS
from deployments.contracts.heartbeats import Progress
from deployments.contracts.messages import Head, Headers
from deployments.contracts.protocols import ExpertClient, ResponseStream
from deployments.contracts.sse import end_of_events, is_event_stream
from deployments.contracts.variants import ADAPTER, Variant, body_of

Pieces = AsyncGenerator[bytes, None]

MOST_HELD_BYTES = 1024 * 1024
"""An unfinished event longer than this is forwarded as it comes."""
MOST_BUFFERED_BYTES = 256 * 1024 * 1024
"""A longer non-streaming response is forwarded as it comes; the dispatcher rejects it."""
NESTED = ("response", "message")
"""Objects of an event that contain `model`, where the event itself does not."""


class VariantClient:
    """Client of a variant.

    Args:
        client: of its engine.
        name: the variant's.
        variant: what makes it different.
        in_cluster: whether the engine is of this cluster, whose replicas read the adapter's header.
    """

    def __init__(self, client: ExpertClient, name: str, variant: Variant, *, in_cluster: bool) -> None:
        self._client = client
        self._name = name
        self._variant = variant
        self._in_cluster = in_cluster
        self.model = client.model

    async def open(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: bytes,
        timeout_s: float,
        connect_s: float | None = None,
        progress: Progress | None = None,
    ) -> ResponseStream:
        """Send the variant's request; see `ExpertClient.open`."""
        endpoint = ENDPOINTS.get(path)
        sent: Headers = headers
        if self._in_cluster:
            sent = (*headers, (ADAPTER, (self._variant.adapter or "").encode()))
        if endpoint is not None and self._variant.changes_bodies:
            body = orjson.dumps(body_of(self._variant, endpoint, orjson.loads(body)))
        stream = await self._client.open(method, path, sent, body, timeout_s, connect_s, progress)
        if endpoint is None or not 200 <= stream.head.status < 300:
            return stream
        return await self._renamed(stream)

    async def retire(self) -> None:
        """Release what the engine's client holds."""
        await self._client.retire()

    async def _renamed(self, stream: ResponseStream) -> ResponseStream:
        head = stream.head
        if is_event_stream(head.headers):
            end = len(head.body) if head.complete else end_of_events(head.body)
            begun = replace(head, body=with_model_in_events(head.body[:end], self._name))
            if head.complete:
                return ResponseStream(begun, stream.rest, stream.connected_s)
            rest = _events(head.body[end:], stream.rest, self._name)
        elif not _is_json(head):
            return stream
        elif head.complete:
            whole = replace(head, body=with_model(head.body, self._name))
            return ResponseStream(whole, stream.rest, stream.connected_s)
        else:
            begun = replace(head, body=b"")
            rest = _whole(head.body, stream.rest, self._name)
        await anext(rest)
        return ResponseStream(begun, rest, stream.connected_s)


def with_model(body: bytes, name: str) -> bytes:
    """A non-streaming response with another `model`; untouched where it has none."""
    changed = _changed(body, name)
    return body if changed is None else changed


def with_model_in_events(events: bytes, name: str) -> bytes:
    """Whole events with another `model`."""
    if b'"model"' not in events:
        return events
    lines = events.split(b"\n")
    for index, line in enumerate(lines):
        if line.startswith(b"data:") and b'"model"' in line:
            changed = _changed(line[5:], name)
            if changed is not None:
                ending = b"\r" if line.endswith(b"\r") else b""
                lines[index] = b"data: " + changed + ending
    return b"\n".join(lines)


def _changed(data: bytes, name: str) -> bytes | None:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict):
        return None
    has_model = False
    for part in (value, *map(value.get, NESTED)):
        if isinstance(part, dict) and isinstance(part.get("model"), str):
            part["model"] = name
            has_model = True
    return orjson.dumps(value) if has_model else None


def _is_json(head: Head) -> bool:
    return any(name.lower() == b"content-type" and b"json" in value for name, value in head.headers)


async def _events(pending: bytes, rest: Pieces, name: str) -> Pieces:
    """The rest of a stream, whole events at a time."""
    held = bytearray(pending)
    try:
        yield b""  # for the caller above: only a generator that has begun runs its end when it is closed
        async for chunk in rest:
            searched = len(held)
            held += chunk
            end = end_of_events(held, searched)
            if len(held) - end > MOST_HELD_BYTES:
                end = len(held)
            if end:
                yield with_model_in_events(bytes(held[:end]), name)
                del held[:end]
        if held:
            yield with_model_in_events(bytes(held), name)
    finally:
        await rest.aclose()


async def _whole(pending: bytes, rest: Pieces, name: str) -> Pieces:
    """The rest of a non-streaming response, at its end; empty pieces meanwhile show that it progresses."""
    held = bytearray(pending)
    try:
        yield b""
        async for chunk in rest:
            held += chunk
            if len(held) > MOST_BUFFERED_BYTES:
                yield bytes(held)
                held.clear()
            else:
                yield b""
        yield with_model(bytes(held), name)
    finally:
        await rest.aclose()
