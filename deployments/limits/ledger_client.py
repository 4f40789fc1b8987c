"""An ingress replica's client of the ledger: requests queue while one call is in flight.

There is at most one call in flight, so under load many requests share one. While the ledger does not
respond the replica decides alone, by its own counts and the last known ones of the others, and reports
the usage once the ledger responds again. Whether a call without a response arrived cannot be known, so
calls are numbered and the ledger counts each once. Knows no Ray: the transport is an argument.
"""

import asyncio
import contextlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from deployments.contracts.errors import ErrorCode, TooMany
from deployments.limits.keys import Caller
from deployments.limits.ledger import Ledger
from deployments.limits.messages import (
    ReserveRequest,
    SyncRequest,
    SyncResponse,
    Totals,
    UnconfirmedUsage,
    UsageChange,
    Verdict,
)
from deployments.limits.steady_clock import SteadyClock

logger = logging.getLogger("ray.serve")

CALL_TIMEOUT_S = 0.5
HEARTBEAT_S = 1.0
MAX_REQUESTS = 1000
"""Requests per call: keeps one message small."""


class LedgerTransport(Protocol):
    """The connection to the common ledger."""

    async def sync(self, call: SyncRequest, timeout_s: float) -> SyncResponse:
        """Make one call.

        Raises:
            TimeoutError: no response in time.
            ConnectionError: the ledger does not respond.
        """
        ...


@dataclass(slots=True)
class _Pending:
    request: ReserveRequest
    verdict: "asyncio.Future[Verdict]"


class Reservation:
    """Usage reserved for an admitted request; settle it once, when the request ends."""

    def __init__(self, client: "LedgerClient | None", request: ReserveRequest | None, at_s: float) -> None:
        self._client, self._request, self._at_s = client, request, at_s

    def settle(self, tokens: int, usd: float) -> None:
        """Replace the reserved usage by the real one; a second call has no effect."""
        client, self._client = self._client, None
        if client is not None and self._request is not None:
            client.settle(self._request, self._at_s, tokens, usd)


class LedgerClient:
    """Admits the requests of keys with limits.

    Args:
        replica: a name that no other client of the ledger has, and no earlier one had.
        transport: the connection to the common ledger.
        clock: seconds since 1970; by default steady ones.
    """

    def __init__(
        self, replica: str, transport: LedgerTransport, clock: Callable[[], float] | None = None
    ) -> None:
        self._replica, self._transport = replica, transport
        self._clock = SteadyClock() if clock is None else clock
        self._own = Ledger(self._clock)
        self._others: dict[str, Totals] = {}
        self._in_flight: Counter[str] = Counter()
        self._completion_usd: defaultdict[str, float] = defaultdict(float)
        self._pending: list[_Pending] = []
        self._usage: list[UsageChange] = []
        self._number = self._confirmed = 0
        self._unconfirmed: UnconfirmedUsage | None = None
        self._calling = asyncio.Lock()
        self._pump: asyncio.Task[None] | None = None
        self._heart: asyncio.Task[None] | None = None
        self.away = False
        """Whether the last call to the common ledger failed."""

    async def reserve(
        self,
        caller: Caller,
        tokens: int,
        usd: float,
        completion_usd: float = 0.0,
        *,
        admitted: bool = False,
    ) -> Reservation:
        """Admit a request, or what an admitted one may use in addition.

        Args:
            caller: the request's key and its limits.
            tokens: the most tokens that it can use.
            usd: the most that it can cost.
            completion_usd: the part of it for completions.
            admitted: whether the request itself is admitted already.

        Raises:
            TooMany: one of the key's limits is reached.
        """
        if not caller.limits.any:
            return Reservation(None, None, 0.0)
        requests = 0 if admitted else 1
        request = ReserveRequest(caller.id, caller.limits, tokens, usd, completion_usd, requests)
        if self.away:
            verdict = self._decide_alone(request)
        else:
            item = _Pending(request, asyncio.get_running_loop().create_future())
            self._pending.append(item)
            self._kick()
            try:
                verdict = await item.verdict
            except asyncio.CancelledError:
                self._forget(item)
                raise
        if verdict.code is not None:
            raise TooMany(verdict.message, ErrorCode(verdict.code), None, verdict.retry_after_s)
        return Reservation(self, request, self._clock())

    def settle(self, request: ReserveRequest, at_s: float, tokens: int, usd: float) -> None:
        """Correct the usage reserved at `at_s` to the real one, and end the request."""
        change = UsageChange(request.key, at_s, 0, tokens - request.tokens, usd - request.usd)
        self._own.add(change)
        self._usage.append(change)
        self._end(request)
        self._kick()

    def start(self) -> None:
        """Begin the heartbeat: once a second the ledger gets the number of requests in flight."""
        if self._heart is None:
            self._heart = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """End the heartbeat; requests that still wait are decided by the counts known here."""
        for task in (self._heart, self._pump):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._heart = None
        self._decide_all_alone(self._pending)
        self._pending = []

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if self._pump is None or self._pump.done():
                try:
                    await self._call()
                    self._own.prune()
                    self._kick()  # usage from the time without the ledger
                except Exception:
                    # Without a heartbeat the ledger would count this replica's requests as ended.
                    logger.exception("unforeseen error in a call of the ledger")

    def _kick(self) -> None:
        if not self.away and (self._pump is None or self._pump.done()):
            self._pump = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await asyncio.sleep(0)  # requests of this turn of the event loop join the call
        while (self._pending or self._usage) and not self.away:
            await self._call()

    async def _call(self) -> None:
        async with self._calling:  # one at a time: the ledger counts calls in the order of their numbers
            await self._call_once()

    async def _call_once(self) -> None:
        pending, self._pending = self._pending[:MAX_REQUESTS], self._pending[MAX_REQUESTS:]
        self._number += 1
        unconfirmed = self._unconfirmed
        usage: tuple[UsageChange, ...] = ()
        if unconfirmed is None:
            usage, self._usage = tuple(self._usage), []
            self._unconfirmed = UnconfirmedUsage(self._number, usage) if usage else None
        in_flight = {key: count for key, count in self._in_flight.items() if count > 0}
        requests = tuple(item.request for item in pending)
        call = SyncRequest(
            self._replica,
            in_flight,
            usage,
            requests,
            self._number,
            self._confirmed,
            unconfirmed,
            self._clock(),
            {key: self._completion_usd[key] for key in in_flight},
        )
        try:
            response = await self._transport.sync(call, CALL_TIMEOUT_S)
            if len(response.verdicts) != len(pending):
                raise ConnectionError("the ledger ignored the call")
        except (TimeoutError, ConnectionError) as error:
            self._lost(error)
            self._decide_without_ledger(pending)
            return
        except Exception as error:
            logger.exception("unforeseen error in a call of the ledger")
            self._lost(error)
            self._decide_without_ledger(pending)
            return
        except BaseException:
            self._pending = [*pending, *self._pending]
            raise
        self._confirmed, self._unconfirmed = self._number, None
        if self.away:
            logger.info("the ledger responds again")
            self.away = False
        for item, verdict in zip(pending, response.verdicts, strict=True):
            if verdict.code is None:
                request = item.request
                self._own.add(
                    UsageChange(request.key, self._clock(), request.requests, request.tokens, request.usd)
                )
                self._begin(request)
            self._resolve(item, verdict)
        for key, totals in response.totals.items():
            self._others[key] = totals.beyond(self._own_totals(key))

    def _decide_without_ledger(self, pending: list[_Pending]) -> None:
        self._usage = _merged(self._usage)
        self._decide_all_alone([*pending, *self._pending])
        self._pending = []

    def _decide_all_alone(self, pending: list[_Pending]) -> None:
        for item in pending:
            self._resolve(item, self._decide_alone(item.request))

    def _resolve(self, item: _Pending, verdict: Verdict) -> None:
        if not item.verdict.done():
            item.verdict.set_result(verdict)
        elif verdict.code is None:  # the request's client left during the call
            self.settle(item.request, self._clock(), 0, 0.0)

    def _forget(self, item: _Pending) -> None:
        if item in self._pending:
            self._pending.remove(item)
        elif item.verdict.done() and not item.verdict.cancelled() and item.verdict.result().code is None:
            self.settle(item.request, self._clock(), 0, 0.0)

    def _decide_alone(self, request: ReserveRequest) -> Verdict:
        others = self._others.get(request.key, Totals())
        in_flight = Totals(in_flight=max(0, self._in_flight[request.key]))
        verdict = self._own.reserve("", request, others + in_flight)
        if request.requests:
            self._own.end_request("", request.key)  # in flight is counted here, not there
        if verdict.code is None:
            self._begin(request)
            self._usage.append(
                UsageChange(request.key, self._clock(), request.requests, request.tokens, request.usd)
            )
        return verdict

    def _begin(self, request: ReserveRequest) -> None:
        self._in_flight[request.key] += request.requests
        self._completion_usd[request.key] += request.completion_usd

    def _end(self, request: ReserveRequest) -> None:
        self._in_flight[request.key] -= request.requests
        self._completion_usd[request.key] -= request.completion_usd
        if self._in_flight[request.key] <= 0:
            del self._completion_usd[request.key]  # sums of fractions do not end at zero

    def _own_totals(self, key: str) -> Totals:
        own = self._own.totals(key)
        return Totals(own.requests, own.tokens, own.usd, max(0, self._in_flight[key]))

    def _lost(self, error: Exception) -> None:
        if not self.away:
            logger.warning("the ledger does not respond (%r): limits hold by the last known counts", error)
        self.away = True


def _merged(usage: list[UsageChange]) -> list[UsageChange]:
    """Return one entry per key and second, so that a long absence of the ledger costs little memory."""
    sums: dict[tuple[str, int], UsageChange] = {}
    for item in usage:
        second = (item.key, int(item.at_s))
        so_far = sums.get(second, UsageChange(item.key, item.at_s, 0, 0, 0.0))
        sums[second] = UsageChange(
            item.key,
            so_far.at_s,
            so_far.requests + item.requests,
            so_far.tokens + item.tokens,
            so_far.usd + item.usd,
        )
    return list(sums.values())
