"""The only callers of handles and of experts elsewhere; tests pass fakes with the same methods.

Every await on another process has a deadline, and every failure before the first byte is an
`ExpertError`: the one thing that the dispatcher has to understand.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import ray.exceptions
from ray import serve
from ray.serve import exceptions as serve_exceptions

from deployments.config import EXPERT_DEPLOYMENT, ExpertTarget
from deployments.contracts.deadlines import within
from deployments.contracts.errors import ExpertError, ExpertOverloaded, ExpertTimeout, ExpertUnavailable
from deployments.contracts.messages import NO_TRACE, Head, Headers, RouterResponse, RouterState, TraceContext
from deployments.contracts.protocols import ExpertClient, ResponseStream
from deployments.settings import resolve
from router.core import RouteRequest

PICKLED = {"request_serialization": "pickle", "response_serialization": "pickle"}
"""Between our own replicas: plain values of our own modules, which Ray's default serialiser, made for
functions and classes of a notebook, writes several times slower."""


class ServeExpert:
    """An expert of this cluster, through its deployment's handle."""

    def __init__(self, name: str, app: str) -> None:
        self.model = name
        self._app = app
        self._handle: Any = None

    async def open(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: bytes,
        timeout_s: float,
        connect_s: float | None = None,
    ) -> ResponseStream:
        started = time.monotonic()
        handle = await self._resolve(timeout_s)
        answer = handle.remote(method, path, tuple(headers), body)
        try:
            await self._taken(answer, timeout_s, connect_s)
            connected_s = time.monotonic() - started
            head = await within(timeout_s - connected_s, anext(answer))
        except BaseException as error:
            answer.cancel()
            if isinstance(error, TimeoutError):
                raise ExpertTimeout(self.model, f"no first byte within {timeout_s:.1f} s") from error
            if isinstance(error, asyncio.CancelledError) and not _cancelled_by_us():
                raise ExpertUnavailable(self.model, "the replica dropped the request") from error
            if isinstance(error, ExpertError):
                raise
            if isinstance(error, Exception):
                raise _unavailable(self.model, error) from error
            raise
        return ResponseStream(head, self._rest(answer), connected_s)

    async def _taken(self, answer: Any, timeout_s: float, connect_s: float | None) -> None:
        """Wait until a replica took the request.

        Serve tries by itself until one does: where the last replica died, until the next is up.
        It has no public word for that moment (Ray 2.60).
        """
        taken = answer._fetch_future_result_async()
        if connect_s is None or connect_s >= timeout_s:
            await within(timeout_s, taken)
            return
        try:
            await within(connect_s, taken)
        except TimeoutError as error:
            told = f"no replica took the request within {connect_s:.1f} s"
            raise ExpertUnavailable(self.model, told) from error

    async def _rest(self, answer: Any) -> AsyncGenerator[bytes, None]:
        done = False
        try:
            async for part in answer:
                yield part
            done = True
        except asyncio.CancelledError as error:
            if _cancelled_by_us():
                raise
            raise ExpertUnavailable(self.model, "the replica dropped the request") from error
        except Exception as error:  # Ray's, Serve's, gRPC's, or what the replica raised
            raise _unavailable(self.model, error) from error
        finally:
            if not done:
                answer.cancel()

    async def _resolve(self, timeout_s: float) -> Any:
        """The handle, made when first needed: it checks that the application exists.

        Configured once and kept: each `options()` makes a handle with its own long poll.
        """
        if self._handle is None:
            try:
                found = asyncio.to_thread(serve.get_deployment_handle, EXPERT_DEPLOYMENT, self._app)
                handle = await within(timeout_s, found)
            except TimeoutError as error:
                raise ExpertTimeout(self.model, "Serve's controller does not answer") from error
            except (
                ray.exceptions.RayError,
                serve_exceptions.RayServeException,
                ValueError,
                KeyError,  # the application is there, its deployment not yet
            ) as error:
                raise ExpertUnavailable(self.model, f"application {self._app!r} is not deployed") from error
            self._handle = handle.options(method_name="http", stream=True, **PICKLED)
        return self._handle


class RemoteExpert:
    """An expert elsewhere: any OpenAI-compatible endpoint that the configuration names."""

    def __init__(
        self, name: str, target: ExpertTarget, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._name = name
        self.model = target.model or name
        self._target = target
        url = str(target.url).rstrip("/")
        self._root = url.removesuffix("/v1")
        # Redirects are not followed, proxies of the environment not used: only the configured host is
        # ever asked.
        self._client = httpx.AsyncClient(
            base_url=url,
            transport=transport,
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(None),
            limits=httpx.Limits(max_connections=1000, max_keepalive_connections=100),
        )

    async def open(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: bytes,
        timeout_s: float,
        connect_s: float | None = None,
    ) -> ResponseStream:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._open(method, path, headers, body, connect_s)
        except TimeoutError as error:
            raise ExpertTimeout(self._name, f"no first byte within {timeout_s:.1f} s") from error
        except (httpx.HTTPError, OSError) as error:
            raise ExpertUnavailable(self._name, type(error).__name__) from error

    async def _open(
        self, method: str, path: str, headers: Headers, body: bytes, connect_s: float | None
    ) -> ResponseStream:
        given = [(name, value) for name, value in headers if name != b"authorization"]
        if key := self._key():
            given.append((b"authorization", f"Bearer {key}".encode()))
        # A configured url ends in /v1, as in the openai client's base_url; /tokenize stands beside it.
        beside = not path.startswith("/v1/")
        request = self._client.build_request(
            method,
            self._root + path if beside else path.removeprefix("/v1"),
            headers=given,
            content=body,
            timeout=httpx.Timeout(None, connect=connect_s),
        )
        response = await self._client.send(request, stream=True)
        chunks = response.aiter_bytes()
        try:
            first = await anext(chunks, b"")
        except BaseException:
            await response.aclose()
            raise
        kept = tuple((name.lower(), value) for name, value in response.headers.raw)
        return ResponseStream(
            Head(response.status_code, kept, first, complete=False), self._rest(response, chunks)
        )

    async def _rest(
        self, response: httpx.Response, chunks: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in chunks:
                yield chunk
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise ExpertUnavailable(self._name, type(error).__name__) from error
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """Close its connections; nothing can be asked of it then."""
        await self._client.aclose()

    def _key(self) -> str | None:
        """The key, read at each request so that a rotated secret needs no restart."""
        if self._target.key_file:
            with contextlib.suppress(OSError):
                return resolve(self._target.key_file).read_text(encoding="utf-8").strip()
            raise ExpertUnavailable(self._name, f"key_file {self._target.key_file} cannot be read")
        return os.environ.get(self._target.key_env) if self._target.key_env else None


def expert_client(name: str, target: ExpertTarget) -> ExpertClient:
    """The client for an expert, by where it lives."""
    return ServeExpert(name, target.app) if target.app is not None else RemoteExpert(name, target)


class RouterClient:
    """The router deployment, through its handle."""

    def __init__(self, handle: Any) -> None:
        self._decide = handle.options(method_name="decide", **PICKLED)
        self._describe = handle.options(method_name="describe", **PICKLED)

    async def decide(
        self, request: RouteRequest, timeout_s: float, trace: TraceContext = NO_TRACE
    ) -> RouterResponse:
        """Ask for a decision, as part of a trace.

        Raises:
            TimeoutError: none came within `timeout_s`.
            ConnectionError: no replica could answer.
        """
        response: RouterResponse = await _bounded(self._decide.remote(request, dict(trace)), timeout_s)
        return response

    async def describe(self, timeout_s: float) -> RouterState:
        """Ask a replica what it serves; raises as `decide` does."""
        state: RouterState = await _bounded(self._describe.remote(), timeout_s)
        return state


async def _bounded(response: Any, timeout_s: float) -> Any:
    try:
        return await within(timeout_s, response)
    except TimeoutError:
        response.cancel()
        raise
    except asyncio.CancelledError as error:
        response.cancel()
        if _cancelled_by_us():
            raise
        raise ConnectionError("the replica dropped the request") from error
    except Exception as error:  # Ray's, Serve's, gRPC's, or what the replica raised
        raise ConnectionError(type(error).__name__) from error


def _cancelled_by_us() -> bool:
    """Whether the running task itself was cancelled, not only what it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _unavailable(name: str, error: Exception) -> ExpertError:
    """A failed call on a handle; its traceback stays in the logs."""
    if isinstance(error, serve_exceptions.BackPressureError):
        return ExpertOverloaded(name, "its queue is full")
    return ExpertUnavailable(name, type(error).__name__)
