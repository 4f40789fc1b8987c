"""An expert of this cluster, through the handle of its Serve deployment; and the choice of a client.

Every failure before the first byte is an `ExpertError`, and every wait has a deadline.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import ray.exceptions
from ray import serve
from ray.serve import exceptions as serve_exceptions

from deployments.config import ExpertTarget
from deployments.contracts.blocking_calls import BlockingCalls
from deployments.contracts.deadlines import own_task_is_cancelled, within
from deployments.contracts.errors import (
    ExpertError,
    ExpertOverloaded,
    ExpertTimeout,
    ExpertUnavailable,
    ExpertUnreachable,
)
from deployments.contracts.heartbeats import Progress
from deployments.contracts.messages import HEARTBEATS, Head, Headers
from deployments.contracts.protocols import ExpertClient, ResponseStream
from deployments.engine_settings import EXPERT_DEPLOYMENT
from deployments.upstream.http_client import RemoteExpert

logger = logging.getLogger("ray.serve")

PICKLED = {"request_serialization": "pickle", "response_serialization": "pickle"}
"""Between our own replicas: plain values of our own modules, which Ray's default serialiser, made for
functions and classes of a notebook, writes several times slower."""


END_WITHIN_S = 5.0
"""For the end of a call after its last bytes; then it is cancelled."""


class ServeExpert:
    """Client of one expert of this cluster.

    Args:
        name: the expert's name in the configuration.
        app: its Serve application.
        handle_for: returns the handle of a deployment of an application; blocks.
    """

    def __init__(
        self, name: str, app: str, handle_for: Callable[[str, str], Any] = serve.get_deployment_handle
    ) -> None:
        self.model = name
        self._app = app
        self._handle_for = handle_for
        self._handle: Any = None
        self._lookups = BlockingCalls("handle-of-expert")
        self._ending: set[asyncio.Task[None]] = set()

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
        """Send a request and wait for the first body bytes; see `ExpertClient.open`."""
        started = time.monotonic()
        handle = await self._resolve(timeout_s)
        sent = (*headers, HEARTBEATS) if progress is not None else tuple(headers)
        response = handle.remote(method, path, sent, body)
        absence: type[ExpertUnavailable] = ExpertUnreachable
        try:
            await self._connect(response, timeout_s, connect_s)
            absence = ExpertUnavailable
            connected_s = time.monotonic() - started
            head = await _head(response, timeout_s - connected_s, progress)
        except BaseException as error:
            response.cancel()
            if isinstance(error, TimeoutError):
                waited_s = time.monotonic() - started
                raise ExpertTimeout(self.model, f"no first byte within {waited_s:.1f} s") from error
            if isinstance(error, asyncio.CancelledError) and not own_task_is_cancelled():
                raise absence(self.model, "the replica dropped the request") from error
            if isinstance(error, ExpertError):
                raise
            if isinstance(error, Exception):
                raise _unavailable(self.model, error, absence) from error
            raise
        rest = self._rest(response)
        if head.complete:
            ending = asyncio.create_task(_read_to_end(response))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        else:
            await anext(rest)
        return ResponseStream(head, rest, connected_s)

    async def retire(self) -> None:
        """Nothing to release: Serve keeps a deployment's connections for all handles of the process."""

    async def _connect(self, response: Any, timeout_s: float, connect_s: float | None) -> None:
        """Wait until a replica has taken the request.

        Serve retries by itself until one does: where the last replica died, until the next is up. It has no
        public method that returns at that time (Ray 2.60).
        """
        connected = response._fetch_future_result_async()
        if connect_s is None or connect_s >= timeout_s:
            await within(timeout_s, connected)
            return
        try:
            await within(connect_s, connected)
        except TimeoutError as error:
            why = f"no replica took the request within {connect_s:.1f} s"
            raise ExpertUnreachable(self.model, why) from error

    async def _rest(self, response: Any) -> AsyncGenerator[bytes, None]:
        done = False
        try:
            yield b""  # for the call above: only a generator that has begun runs its end when it is closed
            async for part in response:
                yield part
            done = True
        except asyncio.CancelledError as error:
            if own_task_is_cancelled():
                raise
            raise ExpertUnavailable(self.model, "the replica dropped the request") from error
        except Exception as error:  # Ray's, Serve's, gRPC's, or an error of the replica
            raise _unavailable(self.model, error) from error
        finally:
            if not done:
                response.cancel()

    async def _resolve(self, timeout_s: float) -> Any:
        """Return the handle, made when first needed: it checks that the application exists.

        Configured once and kept: each `options()` makes a handle with its own long poll.
        """
        if self._handle is None:
            try:
                handle = await self._lookups.run(
                    self._handle_for, EXPERT_DEPLOYMENT, self._app, timeout_s=timeout_s
                )
            except TimeoutError as error:
                raise ExpertTimeout(self.model, "Serve's controller does not respond") from error
            except (
                ray.exceptions.RayError,
                serve_exceptions.RayServeException,
                ValueError,
                KeyError,  # the application is there, its deployment not yet
            ) as error:
                raise ExpertUnreachable(self.model, f"application {self._app!r} is not deployed") from error
            if self._handle is None:  # of two requests that waited, the first configured it
                # On the event loop: a handle belongs to the loop that it is configured on.
                self._handle = handle.options(method_name="http", stream=True, **PICKLED)
        return self._handle


async def _head(response: Any, timeout_s: float, progress: Progress | None) -> Head:
    """Wait for the head of a response; heartbeats before it are noted, and end a silence.

    Raises:
        TimeoutError: it did not come in time, or there was silence for longer than `progress` allows.
    """
    ends = time.monotonic() + timeout_s
    while True:
        wait_s = ends - time.monotonic()
        if progress is not None:
            progress.note()
            wait_s = wait_s if progress.limit_s is None else min(wait_s, progress.limit_s)
        part = await within(wait_s, anext(response))
        if isinstance(part, Head):
            return part


async def _read_to_end(response: Any) -> None:
    """Read the end of a call whose response is complete.

    Until then the call keeps its request, which may be a body of megabytes, for the garbage collector.
    """
    try:
        async with asyncio.timeout(END_WITHIN_S):
            async for _ in response:
                pass
    except Exception as error:  # noqa: BLE001 - Ray's, Serve's, gRPC's: the client has its response
        logger.debug("a call ended with %s after its response", type(error).__name__)
        response.cancel()


def expert_client(name: str, target: ExpertTarget) -> ExpertClient:
    """Return the client for an expert: through Serve where it names an application, else at its URL."""
    return ServeExpert(name, target.app) if target.app is not None else RemoteExpert(name, target)


def _unavailable(
    name: str, error: Exception, absence: type[ExpertUnavailable] = ExpertUnavailable
) -> ExpertError:
    """Map a failed call on a handle; its traceback stays in the logs."""
    if isinstance(error, serve_exceptions.BackPressureError):
        return ExpertOverloaded(name, "its queue is full")
    return absence(name, type(error).__name__)
