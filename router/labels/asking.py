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

from router.data.growing import read_growing
from router.errors import InputError

ATTEMPTS = 4
FIRST_WAIT_S = 1.0
PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that another attempt may not meet."""
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

    Raises:
        InputError: the endpoint refuses a question, or does not answer it in 4 attempts; what was
            answered until then is kept.
    """
    keys = [answers.key(endpoint, path, body) for body in bodies]
    left = {key: body for key, body in zip(keys, bodies, strict=True) if key not in answers}
    waiting = iter(left.items())
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    async with httpx.AsyncClient(
        base_url=endpoint.rstrip("/"), headers=headers, timeout=timeout_s, transport=transport
    ) as client:

        async def work() -> None:
            for key, body in waiting:  # one iterator: each question is taken once
                answers.keep(key, await _ask(client, path, body, reads, sleep))

        tasks = [asyncio.create_task(work()) for _ in range(max(1, min(concurrency, len(left))))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
    return [answers[key] for key in keys]


async def _ask(
    client: httpx.AsyncClient, path: str, body: Body, reads: Reads, sleep: Callable[[float], Awaitable[None]]
) -> Any:
    told = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            await sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
        try:
            response = await client.post(path, json=body)
        except httpx.TransportError as error:
            told = str(error) or type(error).__name__
            continue
        if response.status_code in PASSING:
            told = f"status {response.status_code}"
            continue
        if response.status_code != httpx.codes.OK:
            raise InputError(
                f"{client.base_url}{path.lstrip('/')} refuses a question with status {response.status_code}: "
                f"{response.text[:300]}"
            )
        try:
            return reads(response.json())
        except (ValueError, KeyError, IndexError, TypeError) as error:
            told = f"an answer that cannot be read: {error}"
    raise InputError(
        f"{client.base_url}{path.lstrip('/')} gave no usable answer in {ATTEMPTS} attempts ({told}); "
        "run again to go on from here"
    )
