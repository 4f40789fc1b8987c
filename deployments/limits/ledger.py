"""Counts of each key's use: requests and tokens of the last minute, dollars of the day, requests in flight.

Pure state machine with a clock passed in. One `Ledger` counts for all ingress replicas, so a limit
holds across them; each replica keeps one more for itself, for times when the common one does not respond.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deployments.limits.messages import (
    ReserveRequest,
    SyncRequest,
    SyncResponse,
    Totals,
    UsageChange,
    Verdict,
)

WINDOW_S = 60.0
BUCKET_S = 0.25
"""Counts are kept by the quarter second; a bucket counts until all of it has left the window."""
DAY_S = 86_400.0
REPLICA_LOST_S = 10.0
"""A replica without a call for this long has no requests in flight any more."""
NEVER_S = 3_600.0
"""Retry-After for a request that is larger than the whole limit: not soon."""


@dataclass(frozen=True, slots=True)
class _LastCall:
    """A replica's last call."""

    number: int = 0
    at_s: float = 0.0
    granted: tuple[ReserveRequest, ...] = ()


@dataclass(slots=True)
class _Account:
    minute: "deque[list[Any]]" = field(default_factory=deque)
    """[bucket's end, requests, tokens], oldest first."""
    requests: int = 0
    tokens: int = 0
    day: int = 0
    usd: float = 0.0


class Ledger:
    """Counts per key.

    Args:
        clock: seconds since 1970, for windows that survive a restart and for the day of UTC.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._in_flight: dict[str, dict[str, int]] = {}
        self._seen_at: dict[str, float] = {}
        self._last: dict[str, _LastCall] = {}
        self._completion_usd: dict[str, Mapping[str, float]] = {}
        self._given_back: dict[str, Mapping[str, float]] = {}

    def update_in_flight(self, replica: str, in_flight: Mapping[str, int]) -> None:
        """Take over a replica's own count of requests in flight: it replaces the sum kept here."""
        now = self._clock()
        self._seen_at[replica] = now
        self._in_flight[replica] = dict(in_flight)
        for lost in [name for name, at in self._seen_at.items() if now - at > REPLICA_LOST_S]:
            self._give_back(lost)
            del self._seen_at[lost], self._in_flight[lost]
        for gone in [name for name, last in self._last.items() if now - last.at_s > DAY_S]:
            del self._last[gone]
            self._given_back.pop(gone, None)

    def sync(self, call: SyncRequest) -> SyncResponse:
        """Count a replica's usage, then decide on its requests, in order.

        A call that arrives after a later one is ignored: the later one repeated its usage.
        """
        last = self._last.get(call.replica, _LastCall())
        if call.number <= last.number:
            return SyncResponse((), {})
        self.update_in_flight(call.replica, call.in_flight)
        self._completion_usd[call.replica] = call.completion_usd
        for key, usd in self._given_back.pop(call.replica, {}).items():
            self.add(UsageChange(key, self._clock(), 0, 0, usd))  # it was away, not lost: it will settle
        # The clocks of two machines differ: usage counts for the time that it has here.
        ahead_s = 0.0 if call.sent_at_s is None else call.sent_at_s - self._clock()
        if call.confirmed < last.number:
            for lost in last.granted:  # the response did not arrive: the replica decided by itself
                self.add(UsageChange(lost.key, last.at_s, -1, -lost.tokens, -lost.usd))
        if call.unconfirmed is not None and call.unconfirmed.number > last.number:
            for change in call.unconfirmed.usage:
                self.add(replace(change, at_s=change.at_s - ahead_s))
        for change in call.usage:
            self.add(replace(change, at_s=change.at_s - ahead_s))
        verdicts = tuple(self.reserve(call.replica, request) for request in call.requests)
        decided = zip(call.requests, verdicts, strict=True)
        granted = tuple(request for request, verdict in decided if verdict.code is None)
        self._last[call.replica] = _LastCall(call.number, self._clock(), granted)
        keys = {change.key for change in call.usage} | {request.key for request in call.requests}
        return SyncResponse(verdicts, {key: self.totals(key) for key in keys | {*call.in_flight}})

    def reserve(self, replica: str, request: ReserveRequest, elsewhere: Totals | None = None) -> Verdict:
        """Admit a request and count the most that it can use, or reject it.

        Args:
            replica: the ingress replica that has the request.
            request: the request's key, and the most that it can use.
            elsewhere: use of the key that is known beside the counts here.
        """
        rejection = _exceeded(
            request, self.totals(request.key) + (elsewhere or Totals()), self._waits(request)
        )
        if rejection is not None:
            return rejection
        self.add(UsageChange(request.key, self._clock(), request.requests, request.tokens, request.usd))
        held = self._in_flight.setdefault(replica, {})
        held[request.key] = held.get(request.key, 0) + request.requests
        self._seen_at.setdefault(replica, self._clock())
        return Verdict()

    def end_request(self, replica: str, key: str) -> None:
        """Count one request of a replica less in flight."""
        held = self._in_flight.get(replica, {})
        if held.get(key, 0) > 0:
            held[key] -= 1

    def add(self, change: UsageChange) -> None:
        """Count a change of usage, at its own time."""
        now = self._clock()
        account = self._account(change.key)
        if math.floor(change.at_s / DAY_S) == account.day:
            account.usd = max(0.0, account.usd + change.usd)
        if now - change.at_s >= WINDOW_S + BUCKET_S:
            return
        end = (math.floor(change.at_s / BUCKET_S) + 1) * BUCKET_S
        index = len(account.minute)
        while index and account.minute[index - 1][0] > end:
            index -= 1
        if index and account.minute[index - 1][0] == end:
            account.minute[index - 1][1] += change.requests
            account.minute[index - 1][2] += change.tokens
        else:
            account.minute.insert(index, [end, change.requests, change.tokens])
        account.requests += change.requests
        account.tokens += change.tokens

    def totals(self, key: str) -> Totals:
        """Return the use of a key up to now."""
        account = self._account(key)
        held = sum(counts.get(key, 0) for counts in self._in_flight.values())
        return Totals(account.requests, max(0, account.tokens), account.usd, held)

    def _give_back(self, replica: str) -> None:
        """Give back what a lost replica reserved for completions: the experts ended them when it went.

        Prompts stay charged, and so does what it reported. Without this, the most that its requests could
        have cost would count until the day ends.
        """
        usd = dict(self._completion_usd.pop(replica, {}))
        last = self._last.get(replica, _LastCall())
        for request in last.granted:
            usd[request.key] = usd.get(request.key, 0.0) + request.completion_usd
        for key, amount in usd.items():
            self.add(UsageChange(key, last.at_s, 0, 0, -amount))
        self._given_back[replica] = usd

    def prune(self) -> None:
        """Forget the keys without any use in their windows."""
        for key in [key for key in self._accounts if self._is_idle(key)]:
            del self._accounts[key]

    def _is_idle(self, key: str) -> bool:
        account = self._account(key)
        return not account.minute and not account.usd

    def snapshot(self) -> dict[str, Any]:
        """Return all counts as JSON values, to be written before the next change: they are not copied."""
        return {
            "version": 1,
            "accounts": {
                key: {"minute": list(a.minute), "day": a.day, "usd": a.usd}
                for key, a in self._accounts.items()
            },
            "in_flight": {replica: dict(counts) for replica, counts in self._in_flight.items()},
            "calls": {replica: [last.number, last.at_s] for replica, last in self._last.items()},
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take over a snapshot's counts; those outside their window are dropped at the next use.

        Raises:
            ValueError: the snapshot has another version, or is damaged; nothing of it is taken over.
        """
        if not isinstance(snapshot, Mapping) or snapshot.get("version") != 1:
            version = snapshot.get("version") if isinstance(snapshot, Mapping) else None
            raise ValueError(f"ledger snapshot has version {version!r}, expected 1")
        restored = Ledger(self._clock)
        try:
            restored._take_over(snapshot)
        except (AttributeError, LookupError, TypeError, OverflowError) as error:
            raise ValueError(f"ledger snapshot is damaged: {error!r}") from error
        self._accounts, self._in_flight = restored._accounts, restored._in_flight
        self._seen_at, self._last = restored._seen_at, restored._last

    def _take_over(self, snapshot: Mapping[str, Any]) -> None:
        latest = self._clock() + BUCKET_S  # the clock may have been ahead when the counts were written
        for key, counts in snapshot["accounts"].items():
            buckets = deque([min(float(end), latest), int(n), int(t)] for end, n, t in counts["minute"])
            requests = sum(int(bucket[1]) for bucket in buckets)
            tokens = sum(int(bucket[2]) for bucket in buckets)
            self._accounts[key] = _Account(
                buckets, requests, tokens, int(counts["day"]), float(counts["usd"])
            )
        for replica, in_flight in snapshot["in_flight"].items():
            self.update_in_flight(replica, {key: int(count) for key, count in in_flight.items()})
        for replica, (number, at_s) in snapshot.get("calls", {}).items():
            self._last[replica] = _LastCall(int(number), float(at_s))

    def _account(self, key: str) -> _Account:
        """Return the key's account, without the counts that have left their window."""
        now = self._clock()
        account = self._accounts.setdefault(key, _Account(day=math.floor(now / DAY_S)))
        while account.minute and account.minute[0][0] <= now - WINDOW_S:
            _, requests, tokens = account.minute.popleft()
            account.requests -= requests
            account.tokens -= tokens
        if account.day != (today := math.floor(now / DAY_S)):
            account.day, account.usd = today, 0.0
        return account

    def _waits(self, request: ReserveRequest) -> "_Waits":
        """Return the time until each limit has capacity again."""
        now = self._clock()
        account = self._account(request.key)
        limits = request.limits
        return _Waits(
            requests_s=_free_after_s(
                account.minute, 1, account.requests + request.requests, limits.requests_per_minute, now
            ),
            tokens_s=_free_after_s(
                account.minute, 2, account.tokens + request.tokens, limits.tokens_per_minute, now
            ),
            day_s=(account.day + 1) * DAY_S - now,
        )


@dataclass(frozen=True, slots=True)
class _Waits:
    requests_s: float
    tokens_s: float
    day_s: float


def _free_after_s(
    buckets: Sequence[list[Any]], column: int, total: int, limit: int | None, now: float
) -> float:
    for bucket in buckets:
        if limit is None or total <= limit:
            break
        total -= bucket[column]
        if total <= limit:
            return max(BUCKET_S, float(bucket[0]) + WINDOW_S - now)
    return BUCKET_S if limit is None or total <= limit else NEVER_S


def _exceeded(request: ReserveRequest, used: Totals, waits: _Waits) -> Verdict | None:
    """Return the rejection by the first limit that the request would exceed; `None` where it fits."""
    limits = request.limits
    if limits.max_concurrent is not None and used.in_flight + request.requests > limits.max_concurrent:
        return Verdict("concurrency_limit_exceeded", f"the key's limit of {limits.max_concurrent} concurrent "
                       "requests is reached", 1.0)  # fmt: skip
    if (
        limits.requests_per_minute is not None
        and used.requests + request.requests > limits.requests_per_minute
    ):
        return Verdict(
            "rate_limit_exceeded",
            f"the key's limit of {limits.requests_per_minute} requests per minute is reached",
            waits.requests_s,
        )
    if limits.tokens_per_minute is not None and used.tokens + request.tokens > limits.tokens_per_minute:
        return Verdict(
            "tokens_limit_exceeded",
            f"the key's limit of {limits.tokens_per_minute} tokens per minute leaves no capacity for the "
            f"{request.tokens} that this request can use",
            waits.tokens_s,
        )
    if limits.usd_per_day is not None and used.usd + request.usd > limits.usd_per_day:
        return Verdict(
            "budget_exceeded",
            f"the key's budget of {limits.usd_per_day:g} US$ per day leaves no capacity for this request",
            waits.day_s,
        )
    return None
