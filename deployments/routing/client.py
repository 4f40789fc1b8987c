"""The router as the ingress reaches it, through the handle of its Serve deployment."""

import asyncio
from collections.abc import Sequence
from typing import Any

from deployments.contracts.deadlines import own_task_is_cancelled, within
from deployments.contracts.messages import NO_TRACE, RouterResponse, RouterState, TraceContext
from deployments.routing.coalescing import Coalescer
from deployments.upstream.serve_client import PICKLED
from router.core import RouteRequest


class RouterClient:
    """Client of the router deployment; what waits for decisions leaves as one call.

    Args:
        handle: the deployment's handle.
    """

    def __init__(self, handle: Any) -> None:
        self._decide = handle.options(method_name="decide", **PICKLED)
        self._describe = handle.options(method_name="describe", **PICKLED)
        self._coalescer = Coalescer(self._decide_all)

    async def decide(
        self, request: RouteRequest, timeout_s: float, trace: TraceContext = NO_TRACE
    ) -> RouterResponse:
        """Request a decision, as part of a trace.

        Raises:
            TimeoutError: none came within `timeout_s`.
            ConnectionError: no replica responded.
        """
        return await self._coalescer.submit((request, trace), timeout_s)

    async def _decide_all(
        self, requests: list[tuple[RouteRequest, TraceContext]], timeout_s: float
    ) -> Sequence[RouterResponse]:
        traces = [dict(trace) for _, trace in requests if trace]
        call = self._decide.remote([request for request, _ in requests], traces)
        responses: Sequence[RouterResponse] = await _result(call, timeout_s)
        return responses

    async def describe(self, timeout_s: float) -> RouterState:
        """Request the state of a replica; raises as `decide` does."""
        state: RouterState = await _result(self._describe.remote(), timeout_s)
        return state


async def _result(response: Any, timeout_s: float) -> Any:
    try:
        return await within(timeout_s, response)
    except TimeoutError:
        response.cancel()
        raise
    except asyncio.CancelledError as error:
        response.cancel()
        if own_task_is_cancelled():
            raise
        raise ConnectionError("the replica dropped the request") from error
    except Exception as error:  # Ray's, Serve's, gRPC's, or an error of the replica
        raise ConnectionError(type(error).__name__) from error
