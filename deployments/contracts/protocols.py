"""What the ingress needs of an expert and of the router, whatever stands behind it.

Tests pass fakes with these methods; the implementations are in `upstream` and `routing`.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from deployments.contracts.messages import NO_TRACE, Head, Headers, RouterResponse, TraceContext
from router.core import RouteRequest

HOP_HEADERS = frozenset(
    {
        b"connection", b"content-length", b"date", b"keep-alive", b"proxy-authenticate", b"server", b"te",
        b"trailer", b"transfer-encoding", b"upgrade", b"content-encoding",
    }
)  # fmt: skip
"""Response headers that describe one hop, not the answer."""


@dataclass(slots=True)
class ResponseStream:
    """An expert's answer, begun: its head with the first body bytes, and the bytes to come."""

    head: Head
    rest: AsyncGenerator[bytes, None]
    connected_s: float = 0.0
    """Until somebody took the request."""

    async def aclose(self) -> None:
        """Give up the rest; the expert stops generating."""
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
    ) -> ResponseStream:
        """Send a request and wait for the first body bytes.

        Without `connect_s`, whoever takes the request may do so as late as it can still answer.

        Raises:
            ExpertTimeout: none came within `timeout_s`.
            ExpertUnavailable: nobody took the request within `connect_s`, or whoever did went away.
        """
        ...


class Decider(Protocol):
    """The router, as the ingress asks it for decisions."""

    async def decide(
        self, request: RouteRequest, timeout_s: float, trace: TraceContext = NO_TRACE
    ) -> RouterResponse: ...
