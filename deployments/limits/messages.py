"""Messages between the ingress replicas and the common ledger.

Plain frozen values, pickled between processes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from deployments.limits.keys import KeyLimits


@dataclass(frozen=True, slots=True)
class ReserveRequest:
    """One request that awaits admission, with the most that it can use."""

    key: str
    limits: KeyLimits
    tokens: int
    usd: float
    completion_usd: float = 0.0
    """The part of `usd` for completions: it is not spent where the replica is lost midway."""
    requests: int = 1
    """0 where an admitted request may use more than was reserved before, for instance by a plan."""


@dataclass(frozen=True, slots=True)
class UsageChange:
    """Use of a key that the ledger has not counted yet; negative where a request used less than reserved."""

    key: str
    at_s: float
    """The time that it counts for, in seconds since 1970."""
    requests: int
    tokens: int
    usd: float


@dataclass(frozen=True, slots=True)
class Totals:
    """Use of a key within its windows."""

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
        """Return the difference to `other`; never below zero."""
        return Totals(
            max(0, self.requests - other.requests),
            max(0, self.tokens - other.tokens),
            max(0.0, self.usd - other.usd),
            max(0, self.in_flight - other.in_flight),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request is admitted."""

    code: str | None = None
    """The error code of a rejection; `None` for an admitted request."""
    message: str = ""
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class UnconfirmedUsage:
    """Usage in a call without a response: the ledger may have counted it or not."""

    number: int
    """The call's number."""
    usage: tuple[UsageChange, ...]


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """One call of an ingress replica: it reports usage and reserves at once."""

    replica: str
    in_flight: Mapping[str, int]
    """Requests of each key that the replica serves now, without those in `requests`."""
    usage: tuple[UsageChange, ...] = ()
    requests: tuple[ReserveRequest, ...] = ()
    number: int = 1
    """Counts this replica's calls: a call that arrives late or twice must count once."""
    confirmed: int = 0
    """The last call whose response arrived; what a later one was granted is not in use."""
    unconfirmed: UnconfirmedUsage | None = None
    """Usage of an earlier call whose response did not arrive."""
    sent_at_s: float | None = None
    """The replica's clock at this call: the times of its usage are by that clock."""
    completion_usd: Mapping[str, float] = field(default_factory=dict)
    """What the requests `in_flight` of each key have reserved for completions."""


@dataclass(frozen=True, slots=True)
class SyncResponse:
    """The ledger's response: a verdict for each request, and the totals of the keys concerned."""

    verdicts: tuple[Verdict, ...]
    totals: Mapping[str, Totals]
