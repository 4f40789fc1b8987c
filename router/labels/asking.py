"""Ask an OpenAI-compatible endpoint many questions, each once: answers are kept in a file as they come.

An interrupted run goes on where it stopped, for the file is read before anything is asked.
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
"""An answer's body → what is kept of it, as JSON; ValueError when it is no such answer."""


class Answers:
    """Answers by question, in memory and in a JSONL file.

    Args:
        file: where they are kept; in memory alone without one.

    Raises:
        InputError: the file is there and holds something else.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known: dict[str, Any] = {}
        if file is not None:
            entries = read_growing(file, _key_and_answer, begins=b'{"key": "', what="kept answers")
            self._known.update(entries)

    @staticmethod
    def key(endpoint: str, path: str, body: Body) -> str:
        """A question's name: equal questions to equal endpoints have the same."""
        told = json.dumps([endpoint, path, body], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Any:
        return self._known[key]

    def keep(self, key: str, answer: Any) -> None:
        self._known[key] = answer
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as opened:
                opened.write(json.dumps({"key": key, "answer": answer}) + "\n")


def _key_and_answer(entry: Body) -> tuple[str, Any]:
    return entry["key"], entry["answer"]


async def ask_all(
    endpoint: str,
    path: str,
    bodies: Sequence[Body],
    reads: Reads,
    answers: Answers,
    *,
    api_key: str | None,
    concurrency: int,
    timeout_s: float,
    transport: httpx.AsyncBaseTransport | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[Any]:
    """The answer to each question, in their order; equal questions are asked once.

    An OutcomesError stands for an answer that could not be read in 4 attempts, so that one question
    cannot fail them all.

    Raises:
        InputError: the endpoint is no URL, refuses a question, does not answer it in 4 attempts, or gives
            no question an answer that can be read; what was answered until then is kept.
    """
    keys = [answers.key(endpoint, path, body) for body in bodies]
    left = {key: body for key, body in zip(keys, bodies, strict=True) if key not in answers}
    waiting = iter(left.items())
    unread: dict[str, OutcomesError] = {}
    async with open_client(endpoint, api_key=api_key, timeout_s=timeout_s, transport=transport) as client:

        async def work() -> None:
            for key, body in waiting:  # one iterator: each question is taken once
                try:
                    answers.keep(key, await _ask(client, path, body, reads, sleep))
                except OutcomesError as error:
                    unread[key] = error

        tasks = [asyncio.create_task(work()) for _ in range(max(1, min(concurrency, len(left))))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
    if unread and unread.keys() == set(keys):
        raise InputError(f"{endpoint} gave no question a usable answer: {next(iter(unread.values()))}")
    return [unread[key] if key in unread else answers[key] for key in keys]


class _UnreadableAnswer(RetryableError):
    """An answer that `reads` rejects; its model is not busy, so the next attempt needs no wait."""


async def _ask(
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
            f"{url} gave no usable answer in {ATTEMPTS} attempts ({error or type(error).__name__}); "
            "run again to go on from here"
        ) from error
