"""An ingress replica's side of the ledger: requests gather while one call is on its way.

There is at most one call in flight, so under load many requests share one. While the ledger is
away the replica decides alone, by its own counts and the last it knew of the others', and reports
what was used when the ledger is back. Whether an unanswered call was heard cannot be known, so calls
are numbered and the ledger counts each once. Knows no Ray: the transport is an argument.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from deployments.contracts.errors import ErrorCode, TooMany
from deployments.limits.keys import Caller
from deployments.limits.ledger import Ledger, Reserve, Sync, Synced, Totals, Unanswered, Used, Verdict

logger = logging.getLogger("ray.serve")

CALL_TIMEOUT_S = 0.5
HEARTBEAT_S = 1.0
MOST_WANTED = 1000
"""Requests per call: keeps one message small."""


class AsksLedger(Protocol):
    """The way to the common ledger."""

    async def sync(self, told: Sync, timeout_s: float) -> Synced:
        """Tell and ask.

        Raises:
            TimeoutError: no answer in time.
            ConnectionError: the ledger is away.
        """
        ...


@dataclass(slots=True)
class _Wanted:
    reserve: Reserve
    verdict: "asyncio.Future[Verdict]"


class Reservation:
    """A request that was let in; settle it once, when it ended."""

    def __init__(self, client: "LedgerClient | None", reserve: Reserve | None, at_s: float) -> None:
        self._client, self._reserve, self._at_s = client, reserve, at_s

    def settle(self, tokens: int, usd: float) -> None:
        """The request ended and used so much; a second call does nothing."""
        client, self._client = self._client, None
        if client is not None and self._reserve is not None:
            client.settle(self._reserve, self._at_s, tokens, usd)


class LedgerClient:
    """Lets the requests of limited keys in.

    Args:
        replica: a name that no other client of the ledger has, and no earlier one had.
        transport: the way to the common ledger.
        clock: seconds since 1970.
    """

    def __init__(self, replica: str, transport: AsksLedger, clock: Callable[[], float] = time.time) -> None:
        self._replica, self._transport, self._clock = replica, transport, clock
        self._own = Ledger(clock)
        self._others: dict[str, Totals] = {}
        self._in_flight: Counter[str] = Counter()
        self._wanted: list[_Wanted] = []
        self._used: list[Used] = []
        self._number = self._answered = 0
        self._unanswered: Unanswered | None = None
        self._calling = asyncio.Lock()
        self._pump: asyncio.Task[None] | None = None
        self._heart: asyncio.Task[None] | None = None
        self.away = False
        """Whether the common ledger could not be reached last time."""

    async def reserve(self, caller: Caller, tokens: int, usd: float) -> Reservation:
        """Let a request in.

        Args:
            tokens, usd: the most that it may use.

        Raises:
            TooMany: one of the key's limits is reached.
        """
        if not caller.limits.any:
            return Reservation(None, None, 0.0)
        wanted = Reserve(caller.id, caller.limits, tokens, usd)
        if self.away:
            verdict = self._decide_alone(wanted)
        else:
            asked = _Wanted(wanted, asyncio.get_running_loop().create_future())
            self._wanted.append(asked)
            self._kick()
            try:
                verdict = await asked.verdict
            except asyncio.CancelledError:
                self._forget(asked)
                raise
        if verdict.code is not None:
            raise TooMany(verdict.message, ErrorCode(verdict.code), None, verdict.retry_after_s)
        return Reservation(self, wanted, self._clock())

    def settle(self, reserve: Reserve, at_s: float, tokens: int, usd: float) -> None:
        """Correct what was reserved at `at_s` to what was used, and end the request."""
        change = Used(reserve.key, at_s, 0, tokens - reserve.tokens, usd - reserve.usd)
        self._own.used(change)
        self._used.append(change)
        self._in_flight[reserve.key] -= 1
        self._kick()

    def start(self) -> None:
        """Begin the heartbeat, which tells the ledger once a second what is in flight."""
        if self._heart is None:
            self._heart = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """End the heartbeat; whoever still waits is answered by what is known here."""
        for task in (self._heart, self._pump):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._heart = None
        self._answer_alone(self._wanted)
        self._wanted = []

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if self._pump is None or self._pump.done():
                await self._call()
                self._kick()  # what had gathered while the ledger was away

    def _kick(self) -> None:
        if not self.away and (self._pump is None or self._pump.done()):
            self._pump = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await asyncio.sleep(0)  # what arrived in this turn of the loop goes along
        while (self._wanted or self._used) and not self.away:
            await self._call()

    async def _call(self) -> None:
        async with self._calling:  # one at a time: the ledger takes our word in the order we give it
            await self._call_once()

    async def _call_once(self) -> None:
        wanted, self._wanted = self._wanted[:MOST_WANTED], self._wanted[MOST_WANTED:]
        self._number += 1
        again = self._unanswered
        used: tuple[Used, ...] = ()
        if again is None:
            used, self._used = tuple(self._used), []
            self._unanswered = Unanswered(self._number, used) if used else None
        in_flight = {key: count for key, count in self._in_flight.items() if count > 0}
        asked = tuple(item.reserve for item in wanted)
        told = Sync(self._replica, in_flight, used, asked, self._number, self._answered, again)
        try:
            synced = await self._transport.sync(told, CALL_TIMEOUT_S)
        except (TimeoutError, ConnectionError) as error:
            self._lost(error)
            self._used = _merged(self._used)
            self._answer_alone([*wanted, *self._wanted])
            self._wanted = []
            return
        except BaseException:
            self._wanted = [*wanted, *self._wanted]
            raise
        self._answered, self._unanswered = self._number, None
        if self.away:
            logger.info("the ledger is back")
            self.away = False
        for item, verdict in zip(wanted, synced.verdicts, strict=True):
            if verdict.code is None:
                self._own.used(
                    Used(item.reserve.key, self._clock(), 1, item.reserve.tokens, item.reserve.usd)
                )
                self._in_flight[item.reserve.key] += 1
            self._answer(item, verdict)
        for key, totals in synced.totals.items():
            self._others[key] = totals.beyond(self._own_totals(key))

    def _answer_alone(self, wanted: list[_Wanted]) -> None:
        for item in wanted:
            self._answer(item, self._decide_alone(item.reserve))

    def _answer(self, item: _Wanted, verdict: Verdict) -> None:
        if not item.verdict.done():
            item.verdict.set_result(verdict)
        elif verdict.code is None:  # its client left while it was asked for
            self.settle(item.reserve, self._clock(), 0, 0.0)

    def _forget(self, asked: _Wanted) -> None:
        if asked in self._wanted:
            self._wanted.remove(asked)
        elif asked.verdict.done() and not asked.verdict.cancelled() and asked.verdict.result().code is None:
            self.settle(asked.reserve, self._clock(), 0, 0.0)

    def _decide_alone(self, wanted: Reserve) -> Verdict:
        others = self._others.get(wanted.key, Totals())
        in_flight = Totals(in_flight=max(0, self._in_flight[wanted.key]))
        verdict = self._own.reserve("", wanted, others + in_flight)
        self._own.ended("", wanted.key)  # in flight is counted here, not there
        if verdict.code is None:
            self._in_flight[wanted.key] += 1
            self._used.append(Used(wanted.key, self._clock(), 1, wanted.tokens, wanted.usd))
        return verdict

    def _own_totals(self, key: str) -> Totals:
        own = self._own.totals(key)
        return Totals(own.requests, own.tokens, own.usd, max(0, self._in_flight[key]))

    def _lost(self, error: Exception) -> None:
        if not self.away:
            logger.warning("the ledger is away (%s): limits hold by the last known counts", error)
        self.away = True


def _merged(used: list[Used]) -> list[Used]:
    """One entry per key and second, so that a long absence of the ledger costs little memory."""
    sums: dict[tuple[str, int], Used] = {}
    for item in used:
        place = (item.key, int(item.at_s))
        so_far = sums.get(place, Used(item.key, item.at_s, 0, 0, 0.0))
        sums[place] = Used(
            item.key,
            so_far.at_s,
            so_far.requests + item.requests,
            so_far.tokens + item.tokens,
            so_far.usd + item.usd,
        )
    return list(sums.values())
