"""Requests with an answer that can be checked, and the outcome of each of them."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

CHAT = "/v1/chat/completions"


@dataclass
class Tally:
    """Counts by outcome; `lost` and `mixed` hold what was observed."""

    sent: int = 0
    answered: int = 0
    interrupted: int = 0
    """Streams that ended in an error event and `[DONE]`."""
    rejected: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    broken_connections: int = 0
    fallbacks: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    """`true` and `false` where a plan was carried out, else `no plan`."""
    without_retry_after: int = 0
    answered_at: list[float] = field(default_factory=list)
    offered_over: tuple[float, float] = (0.0, 0.0)
    """The times of the first and the last request."""

    def __str__(self) -> str:
        return (
            f"sent {self.sent}, answered {self.answered}, interrupted {self.interrupted}, rejected "
            f"{dict(self.rejected)}, lost {len(self.lost)}, mixed {len(self.mixed)}, connections broken "
            f"{self.broken_connections}, fallbacks {self.fallbacks}, reasons {dict(self.reasons)}, plans "
            f"accepted {dict(self.accepted)}"
        )


class Load:
    """Sends chat requests and checks the answers.

    Args:
        retries: how often a broken connection or a rejection that allows it is tried again, as the
            openai client does.
        expected: expert and query → what its answer contains; by default an echo of the query.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        retries: int = 2,
        timeout_s: float = 30.0,
        expected: Callable[[str, str], str] = lambda _, query: query.split()[0],
    ) -> None:
        self.tally = Tally()
        self._expected = expected
        self._retries = retries
        limits = httpx.Limits(max_connections=2000, max_keepalive_connections=2000)
        self._client = httpx.AsyncClient(
            base_url=url, timeout=timeout_s, limits=limits, headers={"authorization": f"Bearer {key}"}
        )

    async def steady(
        self,
        requests: int,
        lanes: int,
        body: Callable[[int], dict[str, Any]],
        at: dict[int, Callable[[], Any]] | None = None,
    ) -> None:
        """Send requests in parallel lanes; `at` maps the number of a request to what happens before it."""
        numbers = iter(range(requests))

        async def lane() -> None:
            for number in numbers:
                if at and number in at:
                    await asyncio.to_thread(at[number])
                await self.one(number, body(number))

        await asyncio.gather(*(lane() for _ in range(lanes)))

    async def at_rate(self, per_s: float, seconds: float, body: Callable[[int], dict[str, Any]]) -> None:
        """Send requests at a rate that does not depend on the responses: an open loop."""
        started = time.monotonic()
        tasks = []
        for number in range(int(per_s * seconds)):
            await asyncio.sleep(max(0.0, started + number / per_s - time.monotonic()))
            tasks.append(asyncio.create_task(self.one(number, body(number))))
        self.tally.offered_over = (started, time.monotonic())
        await asyncio.gather(*tasks)

    async def one(self, number: int, body: dict[str, Any]) -> None:
        """Send one request, again where the openai client would."""
        self.tally.sent += 1
        query = f"unique{number}x{id(self)} What is {number} + 1?"
        messages = [{"role": "user", "content": query}]
        sent = {"model": "auto", "messages": messages, "max_tokens": 64, **body}
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            headers = {"x-stainless-retry-count": str(attempt)}
            try:
                done = await self._try(sent, headers, query, last=last)
            except httpx.TransportError as error:
                self.tally.broken_connections += 1
                if last:
                    self.tally.lost.append(f"{number}: {type(error).__name__}")
                done = last
            if done:
                return
            await asyncio.sleep(0.3)

    async def _try(self, body: dict[str, Any], headers: dict[str, str], query: str, *, last: bool) -> bool:
        async with self._client.stream("POST", CHAT, json=body, headers=headers) as response:
            content = await response.aread()
        if response.status_code >= 400:
            return self._rejected(response, content, last=last)
        self.tally.reasons[response.headers["x-router-reason"]] += 1
        self.tally.fallbacks += int(response.headers["x-router-attempts"]) > 1
        self.tally.accepted[response.headers.get("x-router-accepted", "no plan")] += 1
        expert = response.headers["x-router-expert"]
        if body.get("stream"):
            self._check_stream(content, query, expert)
        else:
            answer = orjson.loads(content)
            self._check(answer["choices"][0]["message"]["content"], answer["model"], query, expert)
        return True

    def _check_stream(self, content: bytes, query: str, expert: str) -> None:
        if not content.endswith(b"data: [DONE]\n\n"):
            self.tally.lost.append(f"a stream without end: {content[-200:]!r}")
            return
        events = [orjson.loads(line[6:]) for line in content.split(b"\n") if line.startswith(b"data: {")]
        if "error" in events[-1]:
            self.tally.interrupted += 1
            return
        text = "".join(c["delta"].get("content") or "" for event in events for c in event["choices"])
        self._check(text, events[0]["model"], query, expert)

    def _check(self, text: str, model: str, query: str, expert: str) -> None:
        if self._expected(expert, query) in text and model == expert:
            self.tally.answered += 1
            self.tally.answered_at.append(time.monotonic())
        else:
            self.tally.mixed.append(f"{query}: {model} as {expert}: {text[:100]}")

    def _rejected(self, response: httpx.Response, content: bytes, *, last: bool) -> bool:
        try:
            code = orjson.loads(content)["error"]["code"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            self.tally.lost.append(f"{response.status_code} without envelope: {content[:200]!r}")
            return True
        if response.status_code in {429, 503} and "retry-after" not in response.headers:
            self.tally.without_retry_after += 1
        retry = response.status_code in {408, 429} or response.status_code >= 500
        if retry and not last and response.headers.get("x-should-retry") != "false":
            return False
        self.tally.rejected[f"{response.status_code} {code}"] += 1
        return True

    async def aclose(self) -> None:
        await self._client.aclose()
