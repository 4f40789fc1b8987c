"""What the ingress needs of an expert and of the router, however they are reached.

Tests pass fakes with these methods; the implementations are in `upstream` and `routing`.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from deployments.contracts.heartbeats import Progress
from deployments.contracts.messages import NO_TRACE, Head, Headers, RouterResponse, TraceContext
from router.core import RouteRequest


@dataclass(slots=True)
class ResponseStream:
    """An open response of an expert: its head with the first body bytes, and the bytes to come."""

    head: Head
    rest: AsyncGenerator[bytes, None]
    connected_s: float = 0.0
    """Seconds until a replica accepted the request."""

    async def aclose(self) -> None:
        """Drop the rest; the expert stops generating."""
        await self.rest.aclose()


class ExpertClient(Protocol):
    """One expert, wherever it lives."""

    model: str
    """What the expert calls itself in `model`."""

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
        """Send a request and wait for the first body bytes.

        Without `connect_s`, a replica may accept the request until `timeout_s`. With `progress`, the
        expert is to send heartbeats where it can: they are noted there, and its limit bounds the silence.

        Raises:
            ExpertTimeout: none came within `timeout_s`, or there was silence for too long.
            ExpertUnreachable: no replica accepted the request within `connect_s`.
            ExpertUnavailable: the replica went away.
        """
        ...

    async def retire(self) -> None:
        """Release what the client holds, once its last response has ended: another replaced it."""
        ...


class Decider(Protocol):
    """The router, as the ingress gets decisions from it."""

    async def decide(
        self, request: RouteRequest, timeout_s: float, trace: TraceContext = NO_TRACE
    ) -> RouterResponse: ...
