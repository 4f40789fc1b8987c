"""An expert at a URL: any OpenAI-compatible endpoint that the configuration names.

Imports no Ray. Every failure before the first byte is an `ExpertError`, and every wait has a deadline.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import httpx

from deployments.config import ExpertTarget
from deployments.contracts.blocking_calls import BlockingCalls
from deployments.contracts.errors import ExpertTimeout, ExpertUnavailable, ExpertUnreachable
from deployments.contracts.heartbeats import Progress
from deployments.contracts.messages import REPLICA_KEY, Head, Headers
from deployments.contracts.protocols import ResponseStream
from deployments.settings import resolve

KEY_TIMEOUT_S = 1.0
"""A key file is small: a longer read hangs."""


class RemoteExpert:
    """Client of one expert at a URL.

    Args:
        name: the expert's name in the configuration.
        target: its URL, model and key.
        transport: replaces the network in tests.
        read_key: returns the key in a file; blocks.
    """

    def __init__(
        self,
        name: str,
        target: ExpertTarget,
        transport: httpx.AsyncBaseTransport | None = None,
        read_key: Callable[[str], str] | None = None,
    ) -> None:
        self._name = name
        self.model = target.model or name
        self._target = target
        self._read_key = _read_key if read_key is None else read_key
        self._files = BlockingCalls(f"key-of-{name}")
        self._last_key: str | None = None
        url = str(target.url).rstrip("/")
        self._root = url.removesuffix("/v1")
        self._url, self._transport = url, transport
        self._client = self._connections()
        self._open_responses = 0
        self._retired = False

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
        """Send a request and wait for the first body bytes; see `ExpertClient.open`. It has no heartbeats."""
        if self._client.is_closed:  # retired, but a request that began before knows this client
            self._client = self._connections()
        self._open_responses += 1
        opened = False
        try:
            async with asyncio.timeout(timeout_s):
                stream = await self._open(method, path, headers, body, connect_s)
            opened = True
            return stream
        except TimeoutError as error:
            raise ExpertTimeout(self._name, f"no first byte within {timeout_s:.1f} s") from error
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise ExpertUnreachable(self._name, type(error).__name__) from error
        except (httpx.HTTPError, OSError) as error:
            raise ExpertUnavailable(self._name, type(error).__name__) from error
        finally:
            if not opened:
                await self._response_ended()

    async def retire(self) -> None:
        """Close the connections once the last response has ended."""
        self._retired = True
        self._open_responses += 1
        await self._response_ended()

    def _connections(self) -> httpx.AsyncClient:
        # Redirects are not followed, proxies of the environment not used: only the configured host is
        # ever called.
        return httpx.AsyncClient(
            base_url=self._url,
            transport=self._transport,
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(None),
            limits=httpx.Limits(max_connections=1000, max_keepalive_connections=100),
        )

    async def _response_ended(self) -> None:
        self._open_responses -= 1
        if self._retired and not self._open_responses:
            await self._client.aclose()

    async def _open(
        self, method: str, path: str, headers: Headers, body: bytes, connect_s: float | None
    ) -> ResponseStream:
        sent = [(name, value) for name, value in headers if name not in (b"authorization", REPLICA_KEY)]
        if key := await self._key():
            sent.append((b"authorization", f"Bearer {key}".encode()))
        # A configured url ends in /v1, as in the openai client's base_url; /tokenize is beside it.
        beside = not path.startswith("/v1/")
        request = self._client.build_request(
            method,
            self._root + path if beside else path.removeprefix("/v1"),
            headers=sent,
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
        received = tuple((name.lower(), value) for name, value in response.headers.raw)
        head = Head(response.status_code, received, first, complete=False)
        rest = self._rest(response, chunks)
        await anext(rest)
        return ResponseStream(head, rest)

    async def _rest(
        self, response: httpx.Response, chunks: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        try:
            yield b""  # for the call above: only a generator that has begun runs its end when it is closed
            async for chunk in chunks:
                yield chunk
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise ExpertUnavailable(self._name, type(error).__name__) from error
        finally:
            await response.aclose()
            await self._response_ended()

    async def _key(self) -> str | None:
        """The key, read at each request so that a rotated secret needs no restart.

        Off the event loop: the file may be on a mount that hangs. The last key is used meanwhile.
        """
        file = self._target.key_file
        if file is None:
            return os.environ.get(self._target.key_env) if self._target.key_env else None
        try:
            self._last_key = await self._files.run(self._read_key, file, timeout_s=KEY_TIMEOUT_S)
        except (OSError, UnicodeDecodeError) as error:
            if not isinstance(error, TimeoutError) or self._last_key is None:
                raise ExpertUnreachable(self._name, f"key_file {file} cannot be read") from error
        return self._last_key


def _read_key(file: str) -> str:
    return resolve(file).read_text(encoding="utf-8").strip()
