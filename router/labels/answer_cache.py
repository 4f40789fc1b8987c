"""Send many requests to an OpenAI-compatible endpoint, each once, with a file as the cache of the answers.

An interrupted run goes on where it stopped, because the file is read before the first request.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from router.collection.endpoint import (
    ATTEMPTS,
    RETRYABLE,
    RetryableError,
    open_client,
    retry_after_s,
    with_retries,
)
from router.data.growing import read_growing
from router.errors import InputError, OutcomesError

Body = dict[str, Any]
Reads = Callable[[Body], Any]
"""A response's body → the part to keep, as JSON; raises ValueError for an unusable answer."""


class AnswerCache:
    """Answers by request, in memory and in a JSONL file.

    Args:
        file: the JSONL file; `None` for memory only.

    Raises:
        InputError: the file holds something else.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known: dict[str, Any] = {}
        if file is not None:
            entries = read_growing(file, _key_and_answer, begins=b'{"key": "', what="cached answers")
            self._known.update(entries)

    @staticmethod
    def key(endpoint: str, path: str, body: Body) -> str:
        """The key of a request: equal requests to equal endpoints have equal keys."""
        text = json.dumps([endpoint, path, body], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Any:
        return self._known[key]

    def keep(self, key: str, answer: Any) -> None:
        """Add an answer, to the file too."""
        self._known[key] = answer
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as opened:
                opened.write(json.dumps({"key": key, "answer": answer}) + "\n")


def _key_and_answer(entry: Body) -> tuple[str, Any]:
    return entry["key"], entry["answer"]


async def fetch_all(
    endpoint: str,
    path: str,
    bodies: Sequence[Body],
    reads: Reads,
    cache: AnswerCache,
    *,
    api_key: str | None,
    concurrency: int,
    timeout_s: float,
    transport: httpx.AsyncBaseTransport | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[Any]:
    """The answer to each request, in their order; equal requests are sent once.

    An answer that could not be read in 4 attempts is an OutcomesError in the list, so that one request
    does not fail the others.

    Args:
        endpoint: such as http://127.0.0.1:8000/v1.
        path: such as /chat/completions.
        bodies: the requests' bodies.
        reads: response body → answer.
        cache: known answers; new ones are added.
        api_key: sent as a bearer token; `None` for no key.
        concurrency: requests in flight.
        timeout_s: of one attempt.
        transport: for tests.
        sleep: for tests.

    Raises:
        InputError: the endpoint is no URL, rejects a request, does not respond to it in 4 attempts, or
            returns no usable answer to any request; answers until then are kept.
    """
    keys = [cache.key(endpoint, path, body) for body in bodies]
    left = {key: body for key, body in zip(keys, bodies, strict=True) if key not in cache}
    waiting = iter(left.items())
    unread: dict[str, OutcomesError] = {}
    async with open_client(endpoint, api_key=api_key, timeout_s=timeout_s, transport=transport) as client:

        async def work() -> None:
            for key, body in waiting:  # one iterator: each request is sent once
                try:
                    cache.keep(key, await _fetch(client, path, body, reads, sleep))
                except OutcomesError as error:
                    unread[key] = error

        tasks = [asyncio.create_task(work()) for _ in range(max(1, min(concurrency, len(left))))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
    if unread and unread.keys() == set(keys):
        raise InputError(
            f"{endpoint} returned no usable answer to any request: {next(iter(unread.values()))}"
        )
    return [unread[key] if key in unread else cache[key] for key in keys]


class _UnreadableAnswer(RetryableError):
    """An answer that `reads` rejects; its model is not busy, so the next attempt needs no wait."""


async def _fetch(
    client: httpx.AsyncClient, path: str, body: Body, reads: Reads, sleep: Callable[[float], Awaitable[None]]
) -> Any:
    url = f"{client.base_url}{path.lstrip('/')}"

    async def attempt() -> Any:
        response = await client.post(path, json=body)
        if response.status_code in RETRYABLE:
            raise RetryableError(f"status {response.status_code}", retry_after_s(response))
        if response.status_code != httpx.codes.OK:
            raise InputError(
                f"{url} rejects a request with status {response.status_code}: {response.text[:300]}"
            )
        try:
            return reads(response.json())
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise _UnreadableAnswer(f"an answer that cannot be read: {error}", 0.0) from error

    try:
        return await with_retries(attempt, sleep=sleep)
    except _UnreadableAnswer as error:
        raise OutcomesError(str(error)) from error
    except (RetryableError, httpx.TransportError) as error:
        raise InputError(
            f"{url} returned no usable answer in {ATTEMPTS} attempts ({error or type(error).__name__}); "
            "run again to go on from here"
        ) from error
