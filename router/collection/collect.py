"""Send every query to every expert through a running endpoint, and keep the answers.

Uses the OpenAI chat API over HTTP. Each answer is appended to a JSONL file as it arrives, so an
interrupted run goes on where it stopped. A query without an answer is reported as a failure, never
counted as a bad answer.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import httpx
from httpx_sse import EventSource, SSEError

from router.collection.chat_events import DONE, ChatEvent, read_event
from router.collection.endpoint import (
    RETRYABLE,
    RetryableError,
    listed_models,
    open_client,
    retry_after_s,
    with_retries,
)
from router.data.growing import read_growing
from router.data.outcomes import MOST_LOGPROBS, Row, read_rows
from router.errors import InputError, OutcomesError

CARRIED = ("reference", "task", "split")
"""Fields of a query that its outcomes carry on."""


@dataclass(frozen=True, slots=True)
class Collected:
    """How a collection ended."""

    collected: int
    """Answers of this run."""
    kept_from_before: int
    failed: tuple[str, ...]
    """`query_id expert: reason` for each pair without an answer."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling parameters of every request."""

    max_tokens: int
    temperature: float
    logprobs: bool = False
    """Whether each token's log-probability is requested."""


def read_queries(file: Path, *, repeated: bool = False) -> list[Row]:
    """Queries: rows with `query`, optionally `query_id`, `reference`, `task`, `split`.

    Args:
        file: Parquet or JSONL.
        repeated: take the first row of each query_id, as when outcomes are read for their queries.

    Raises:
        OutcomesError: empty, or a row without a text `query`, or a duplicated query_id.
    """
    rows = read_rows(file)
    queries: dict[str, Row] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("query"), str):
            raise OutcomesError(f"{file}, row {number}: query must be a text, found {row.get('query')!r:.60}")
        # Lone surrogates come in through JSON escapes; no request and no file can hold them.
        row["query"] = row["query"].encode("utf-8", "replace").decode("utf-8")
        row["query_id"] = str(row.get("query_id") or f"q{number:06d}")
        if row["query_id"] in queries and not repeated:
            raise OutcomesError(f"{file}, row {number}: query_id {row['query_id']!r} is duplicated")
        queries.setdefault(row["query_id"], row)
    return list(queries.values())


async def collect(
    endpoint: str,
    queries: Sequence[Row],
    experts: Sequence[str],
    out: Path,
    *,
    api_key: str | None = None,
    max_tokens: int = 512,
    temperature: float = 0.0,
    samples: int = 1,
    logprobs: bool = False,
    concurrency: int = 8,
    timeout_s: float = 120.0,
    progress: Callable[[int], None] = lambda done: None,
    transport: httpx.AsyncBaseTransport | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Collected:
    """Collect the missing answers, appending each to `out`.

    Raises:
        InputError: the endpoint is no URL, does not respond or lacks an expert; or `out` is a Parquet file,
            or is not a collection, or holds answers to another query of the same query_id; or several samples
            are wanted at temperature 0.
    """
    if out.suffix == ".parquet":
        raise InputError(f"{out}: answers are appended one by one, which Parquet cannot: name a .jsonl file")
    if samples > 1 and temperature == 0:
        raise InputError("samples differ only at a temperature above 0: set one, or collect one sample")
    done = _done(out, queries)
    calls = [
        (query, expert, sample)
        for query in queries
        for expert in experts
        for sample in range(samples)
        if (query["query_id"], expert, sample) not in done
    ]
    total = len(queries) * len(experts) * samples
    sampling = Sampling(max_tokens, temperature, logprobs)
    failed: list[str] = []
    waiting = iter(calls)
    async with open_client(endpoint, api_key=api_key, timeout_s=timeout_s, transport=transport) as client:
        await _check_experts(client, experts)
        out.parent.mkdir(parents=True, exist_ok=True)
        progress(total - len(calls))
        with out.open("a", encoding="utf-8", errors="replace") as file:

            async def work() -> None:
                for query, expert, sample in waiting:  # one iterator: each call is made once
                    try:
                        row = await with_retries(
                            partial(_answer, client, query, expert, sampling), sleep=sleep
                        )
                    except (httpx.HTTPError, OutcomesError, RetryableError) as error:
                        failed.append(f"{query['query_id']} {expert}: {error or type(error).__name__}")
                    else:
                        _append(file, {**row, "sample": sample} if samples > 1 else row)
                    progress(1)

            await asyncio.gather(*(work() for _ in range(max(1, concurrency))))
    return Collected(len(calls) - len(failed), total - len(calls), tuple(failed))


async def _answer(client: httpx.AsyncClient, query: Row, expert: str, sampling: Sampling) -> Row:
    """One outcome row, without its quality; streamed, so that the time to first token is measured."""
    body = {
        "model": expert,
        "messages": [{"role": "user", "content": query["query"]}],
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
        **({"logprobs": True} if sampling.logprobs else {}),
    }
    started = time.perf_counter()
    text, first, reason = "", None, None
    usage: dict[str, int] = {}
    certain: list[float] = []
    async with client.stream("POST", "/chat/completions", json=body) as response:
        if response.status_code != 200:
            body_text = (await response.aread()).decode("utf-8", "replace")
            why = f"status {response.status_code}: {body_text[:200]}"
            if response.status_code in RETRYABLE:
                raise RetryableError(why, retry_after_s(response))
            raise OutcomesError(why)
        async for event in _events(response):
            usage = event.usage or usage
            reason = event.finish_reason or reason
            certain += event.logprobs
            if event.text and first is None:
                first = time.perf_counter() - started
            text += event.text
    row = _row(query, expert, text, usage, first, time.perf_counter() - started)
    if reason is not None:
        row["finish_reason"] = reason
    if certain:
        row["token_logprobs"] = [round(value, 5) for value in certain[:MOST_LOGPROBS]]
    return row


async def _events(response: httpx.Response) -> AsyncIterator[ChatEvent]:
    """The stream's events up to its `[DONE]`; an OutcomesError where it has none, or is no stream."""
    try:
        async with aclosing(EventSource(response).aiter_sse()) as events:
            async for sent in events:
                if sent.data.strip() == DONE:
                    return
                event = read_event(sent.data)
                if event.error is not None:
                    raise OutcomesError(f"the stream broke off: {event.error}")
                yield event
    except SSEError as error:
        raise OutcomesError(f"the response is not a stream of events: {error}") from error
    except ValueError as error:
        raise OutcomesError(f"the stream holds {error}") from error
    raise OutcomesError("the stream broke off before its end")


def _row(
    query: Row, expert: str, text: str, usage: dict[str, int], first: float | None, seconds: float
) -> Row:
    carried = {name: query[name] for name in CARRIED if query.get(name) is not None}
    return {
        "query_id": query["query_id"],
        "query": query["query"],
        "expert": expert,
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "latency_s": round(seconds, 6),
        "ttft_s": None if first is None else round(first, 6),
        "response": text,
        **carried,
    }


async def _check_experts(client: httpx.AsyncClient, experts: Sequence[str]) -> None:
    known = await listed_models(client)
    if unknown := [name for name in experts if name not in known]:
        raise InputError(f"the endpoint has no expert {unknown[0]!r}; it has {', '.join(known)}")


def _done(out: Path, queries: Sequence[Row]) -> set[tuple[str, str, int]]:
    """Calls of an earlier run; an incomplete last line is removed from the file."""
    kept = read_growing(out, _call_and_text, begins=b'{"query_id": "', what="a collection")
    texts = {query_id: text for (query_id, _, _), text in kept}
    for query in queries:
        name, now = query["query_id"], query["query"]
        if (before := texts.get(name, now)) != now:
            raise InputError(
                f"{out} holds answers to another query of query_id {name!r}: there {before!r:.60}, "
                f"now {now!r:.60}. Give the new query an id of its own, or name another file"
            )
    return {call for call, _ in kept}


def _call_and_text(row: Row) -> tuple[tuple[str, str, int], str]:
    pair, text = (row["query_id"], row["expert"]), row["query"]
    if not all(isinstance(part, str) for part in (*pair, text)):
        raise TypeError("query_id, expert and query must be texts")
    return (*pair, int(row.get("sample") or 0)), text


def _append(file: TextIO, row: Row) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    file.flush()
