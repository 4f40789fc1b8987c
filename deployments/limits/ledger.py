"""What each key has used: requests and tokens of the last minute, dollars of the day, requests in flight.

Pure state machine with a clock passed in. One `Ledger` counts for all ingress replicas, so a limit
holds across them; each replica keeps one more for itself, for the time that the common one is away.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.limits.keys import KeyLimits

WINDOW_S = 60.0
BUCKET_S = 0.25
"""Counts are kept by the quarter second; a bucket counts until all of it has left the window."""
DAY_S = 86_400.0
REPLICA_LOST_S = 10.0
"""A replica that did not speak for this long has no requests in flight any more."""
NEVER_S = 3_600.0
"""Time to come back for a request that is larger than the whole limit: not soon."""


@dataclass(frozen=True, slots=True)
class Reserve:
    """One request that wants to go in, with the most that it may use."""

    key: str
    limits: KeyLimits
    tokens: int
    usd: float


@dataclass(frozen=True, slots=True)
class Used:
    """A correction: what a request used more or less than reserved, or used while nobody counted."""

    key: str
    at_s: float
    requests: int
    tokens: int
    usd: float


@dataclass(frozen=True, slots=True)
class Totals:
    """What a key has used."""

    requests: int = 0
    tokens: int = 0
    usd: float = 0.0
    in_flight: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.requests + other.requests,
            self.tokens + other.tokens,
            self.usd + other.usd,
            self.in_flight + other.in_flight,
        )

    def beyond(self, other: "Totals") -> "Totals":
        """What is here and not in `other`; never below zero."""
        return Totals(
            max(0, self.requests - other.requests),
            max(0, self.tokens - other.tokens),
            max(0.0, self.usd - other.usd),
            max(0, self.in_flight - other.in_flight),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request may go in; `None` in `code` says yes."""

    code: str | None = None
    message: str = ""
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Sync:
    """What an ingress replica tells and asks at once."""

    replica: str
    in_flight: Mapping[str, int]
    """Requests of each key that it is answering, without those it asks for here."""
    used: tuple[Used, ...] = ()
    wanted: tuple[Reserve, ...] = ()
    number: int = 1
    """Counts this replica's calls: one that is heard late or twice must count once."""
    answered: int = 0
    """The last call whose answer came; what a later one was granted is not in use."""
    again: "Unanswered | None" = None
    """What an earlier call told, whose answer did not come."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """What was used, as an unanswered call told it; the ledger may have heard it or not."""

    number: int
    used: tuple[Used, ...]


@dataclass(frozen=True, slots=True)
class Synced:
    """The ledger's answer: a verdict for each wanted request, and the totals of the keys concerned."""

    verdicts: tuple[Verdict, ...]
    totals: Mapping[str, Totals]


@dataclass(frozen=True, slots=True)
class _Heard:
    """A replica's last call."""

    number: int = 0
    at_s: float = 0.0
    granted: tuple[Reserve, ...] = ()


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
        self._heard: dict[str, float] = {}
        self._last: dict[str, _Heard] = {}

    def heard(self, replica: str, in_flight: Mapping[str, int]) -> None:
        """A replica told how many requests of each key it is answering: its word counts, not our sum."""
        now = self._clock()
        self._heard[replica] = now
        self._in_flight[replica] = dict(in_flight)
        for lost in [name for name, at in self._heard.items() if now - at > REPLICA_LOST_S]:
            del self._heard[lost], self._in_flight[lost]
        for gone in [name for name, last in self._last.items() if now - last.at_s > DAY_S]:
            del self._last[gone]

    def sync(self, told: Sync) -> Synced:
        """Take a replica's word, then decide on what it asks for, in order.

        A call that was overtaken by a later one is ignored: the later one told it again.
        """
        last = self._last.get(told.replica, _Heard())
        if told.number <= last.number:
            return Synced((), {})
        self.heard(told.replica, told.in_flight)
        if told.answered < last.number:
            for lost in last.granted:  # nobody heard of it: the replica decided by itself
                self.used(Used(lost.key, last.at_s, -1, -lost.tokens, -lost.usd))
        if told.again is not None and told.again.number > last.number:
            for used in told.again.used:
                self.used(used)
        for used in told.used:
            self.used(used)
        verdicts = tuple(self.reserve(told.replica, wanted) for wanted in told.wanted)
        let_in = zip(told.wanted, verdicts, strict=True)
        granted = tuple(wanted for wanted, verdict in let_in if verdict.code is None)
        self._last[told.replica] = _Heard(told.number, self._clock(), granted)
        keys = {used.key for used in told.used} | {wanted.key for wanted in told.wanted} | {*told.in_flight}
        return Synced(verdicts, {key: self.totals(key) for key in keys})

    def reserve(self, replica: str, wanted: Reserve, elsewhere: Totals | None = None) -> Verdict:
        """Let a request in and count the most it may use, or say why not.

        Args:
            elsewhere: what others are known to have used beside what is counted here.
        """
        refused = _exceeded(wanted, self.totals(wanted.key) + (elsewhere or Totals()), self._waits(wanted))
        if refused is not None:
            return refused
        self.used(Used(wanted.key, self._clock(), 1, wanted.tokens, wanted.usd))
        held = self._in_flight.setdefault(replica, {})
        held[wanted.key] = held.get(wanted.key, 0) + 1
        self._heard.setdefault(replica, self._clock())
        return Verdict()

    def ended(self, replica: str, key: str) -> None:
        """One request of a replica is over."""
        held = self._in_flight.get(replica, {})
        if held.get(key, 0) > 0:
            held[key] -= 1

    def used(self, used: Used) -> None:
        """Count what was used, at the time that it was."""
        now = self._clock()
        account = self._account(used.key)
        if math.floor(used.at_s / DAY_S) == account.day:
            account.usd = max(0.0, account.usd + used.usd)
        if now - used.at_s >= WINDOW_S + BUCKET_S:
            return
        end = (math.floor(used.at_s / BUCKET_S) + 1) * BUCKET_S
        place = len(account.minute)
        while place and account.minute[place - 1][0] > end:
            place -= 1
        if place and account.minute[place - 1][0] == end:
            account.minute[place - 1][1] += used.requests
            account.minute[place - 1][2] += used.tokens
        else:
            account.minute.insert(place, [end, used.requests, used.tokens])
        account.requests += used.requests
        account.tokens += used.tokens

    def totals(self, key: str) -> Totals:
        """What a key has used up to now."""
        account = self._account(key)
        held = sum(counts.get(key, 0) for counts in self._in_flight.values())
        return Totals(account.requests, max(0, account.tokens), account.usd, held)

    def snapshot(self) -> dict[str, Any]:
        """All counts, as JSON takes them; those in flight are told anew by each replica that speaks."""
        return {
            "version": 1,
            "accounts": {
                key: {"minute": [list(bucket) for bucket in a.minute], "day": a.day, "usd": a.usd}
                for key, a in self._accounts.items()
            },
            "in_flight": {replica: dict(counts) for replica, counts in self._in_flight.items()},
            "calls": {replica: [last.number, last.at_s] for replica, last in self._last.items()},
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take over a snapshot's counts; what has left its window falls away by itself.

        Raises:
            ValueError: it is none of ours.
        """
        if snapshot.get("version") != 1:
            raise ValueError(f"ledger snapshot has version {snapshot.get('version')!r}, expected 1")
        for key, told in snapshot["accounts"].items():
            buckets = deque([float(end), int(n), int(t)] for end, n, t in told["minute"])
            requests = sum(int(bucket[1]) for bucket in buckets)
            tokens = sum(int(bucket[2]) for bucket in buckets)
            self._accounts[key] = _Account(buckets, requests, tokens, int(told["day"]), float(told["usd"]))
        for replica, counts in snapshot["in_flight"].items():
            self.heard(replica, {key: int(count) for key, count in counts.items()})
        for replica, (number, at_s) in snapshot.get("calls", {}).items():
            self._last[replica] = _Heard(int(number), float(at_s))

    def _account(self, key: str) -> _Account:
        """The key's account, with what has left its window gone."""
        now = self._clock()
        account = self._accounts.setdefault(key, _Account(day=math.floor(now / DAY_S)))
        while account.minute and account.minute[0][0] <= now - WINDOW_S:
            _, requests, tokens = account.minute.popleft()
            account.requests -= requests
            account.tokens -= tokens
        if account.day != (today := math.floor(now / DAY_S)):
            account.day, account.usd = today, 0.0
        return account

    def _waits(self, wanted: Reserve) -> "_Waits":
        """When there would be room again, for each limit."""
        now = self._clock()
        account = self._account(wanted.key)
        limits = wanted.limits
        return _Waits(
            requests_s=_room_after_s(
                account.minute, 1, account.requests + 1, limits.requests_per_minute, now
            ),
            tokens_s=_room_after_s(
                account.minute, 2, account.tokens + wanted.tokens, limits.tokens_per_minute, now
            ),
            day_s=(account.day + 1) * DAY_S - now,
        )


@dataclass(frozen=True, slots=True)
class _Waits:
    requests_s: float
    tokens_s: float
    day_s: float


def _room_after_s(
    buckets: Sequence[list[Any]], column: int, total: int, limit: int | None, now: float
) -> float:
    for bucket in buckets:
        if limit is None or total <= limit:
            break
        total -= bucket[column]
        if total <= limit:
            return max(BUCKET_S, float(bucket[0]) + WINDOW_S - now)
    return BUCKET_S if limit is None or total <= limit else NEVER_S


def _exceeded(wanted: Reserve, used: Totals, waits: _Waits) -> Verdict | None:
    """The first limit that the request would pass."""
    limits = wanted.limits
    if limits.max_concurrent is not None and used.in_flight + 1 > limits.max_concurrent:
        return Verdict("concurrency_limit_exceeded", f"the key's limit of {limits.max_concurrent} concurrent "
                       "requests is reached", 1.0)  # fmt: skip
    if limits.requests_per_minute is not None and used.requests + 1 > limits.requests_per_minute:
        return Verdict(
            "rate_limit_exceeded",
            f"the key's limit of {limits.requests_per_minute} requests per minute is reached",
            waits.requests_s,
        )
    if limits.tokens_per_minute is not None and used.tokens + wanted.tokens > limits.tokens_per_minute:
        return Verdict(
            "tokens_limit_exceeded",
            f"the key's limit of {limits.tokens_per_minute} tokens per minute leaves no room for the "
            f"{wanted.tokens} that this request may use",
            waits.tokens_s,
        )
    if limits.usd_per_day is not None and used.usd + wanted.usd > limits.usd_per_day:
        return Verdict(
            "budget_exceeded",
            f"the key's budget of {limits.usd_per_day:g} US$ per day leaves no room for this request",
            waits.day_s,
        )
    return None
