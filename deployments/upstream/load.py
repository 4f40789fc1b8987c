"""What a request would take on an expert now: learnt from its responses, and the load that it reports.

Pure state with a clock passed in; one estimate per expert and ingress replica. Speeds are lines that
follow slowly; load is what is in flight from here, and what the replicas reported of others, which fades.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from deployments.contracts.messages import ReplicaLoad
from deployments.upstream.online_line import OnlineLine
from router.core import ExpertLoad

HALF_LIFE_S = 10.0
"""Reported load of others halves in this time: more than between two reports, as a silent expert is idle."""
SERVICE_SMOOTHING = 0.1
CAPACITY_SMOOTHING = 0.1
STICKY = 0.1
"""A learnt speed takes effect once it differs by this share: small changes shall not swing the traffic."""
ASSUMED_START_S = 60.0
"""Time that an expert at zero replicas takes to start, until one start was measured."""
WAIT_SMOOTHING = 0.05
MIN_WAIT_S = 0.2
"""Expected waits from this on are compared with the observed ones."""
MOST_WAIT_RATIO = 4.0
MIN_OBSERVATIONS = 3
"""Responses before anything is known of an expert."""
PATIENCE_S, MOST_PATIENCE_S = 30.0, 3600.0
"""An expert without a call for so long is silent; the time doubles with each call that ends a silence."""
TYPICAL_PROMPT, TYPICAL_IN_FLIGHT = 1000.0, 8.0


@dataclass(frozen=True, slots=True)
class Begun:
    """What is known of a request when an expert gets it; its times are compared with it later."""

    uncached_tokens: int
    in_flight: int
    """Served at the expert at once, with this one."""
    waited_s: float
    """Expected wait for others within the engine."""


NOTHING = Begun(0, 0, 0.0)


@dataclass(frozen=True, slots=True)
class Present:
    """An expert as a request finds it."""

    estimate: "LoadEstimate"
    in_flight: int
    """Requests of this ingress replica at it, or waiting for it."""
    slots: int
    """Requests that this ingress replica sends there at once."""
    cached_tokens: int = 0
    cold: bool = False
    """Whether no replica runs."""


def loads_now(experts: Mapping[str, Present]) -> dict[str, ExpertLoad]:
    """Expert → what one more request would meet there now; empty while nothing is known of any.

    One that has not responded yet counts as idle and as fast as the others are on average, but for what is
    in flight to it: so it gets requests once the others are busy, and is known then.
    """
    loads = {
        name: one.estimate.now(one.in_flight, one.slots, cached_tokens=one.cached_tokens, cold=one.cold)
        for name, one in experts.items()
    }
    if all(load is not None for load in loads.values()):
        return {name: load for name, load in loads.items() if load is not None}
    idle = [found for one in experts.values() if (found := one.estimate.now(0, one.slots, idle=True))]
    return {
        name: load if load is not None else _like(idle, experts[name])
        for name, load in loads.items()
        if load is not None or idle
    }


def _like(idle: Sequence[ExpertLoad], expert: Present) -> ExpertLoad:
    added_s = mean(load.added_wait_s for load in idle)
    return ExpertLoad(
        wait_s=mean(load.wait_s for load in idle) + expert.in_flight * added_s,
        prefill_s_per_token=mean(load.prefill_s_per_token for load in idle),
        s_per_output_token=mean(load.s_per_output_token for load in idle),
        cached_tokens=expert.cached_tokens,
        added_wait_s=added_s,
    )


def followed(old: Sequence[float], new: Sequence[float]) -> tuple[float, ...]:
    """Numbers that follow others only when those have moved away enough."""
    return tuple(
        [value if abs(value - kept) > STICKY * kept else kept for kept, value in zip(old, new, strict=True)]
    )


class LoadEstimate:
    """Speed and load of one expert.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ttft = OnlineLine(TYPICAL_PROMPT, TYPICAL_IN_FLIGHT)
        self._token = OnlineLine(TYPICAL_IN_FLIGHT)
        self._first_speeds: tuple[float, ...] = (0.0, 0.0, 0.0)
        self._token_speeds: tuple[float, ...] = (0.0, 0.0)
        """As they take effect."""
        self._service_s = 0.0
        self._wait_ratio = 1.0
        """Observed waits by what the queue and the service time say."""
        self._usual_service_s = 0.0
        """As it takes effect."""
        self._responses = 0
        self._others = 0.0
        self._reported_at = 0.0
        self._called_at, self._patience_s = clock(), PATIENCE_S
        self._capacity: float | None = None
        self._start_s: float | None = None
        self._cold_since: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether enough responses were seen to know anything."""
        return self._responses >= MIN_OBSERVATIONS

    def reported(self, load: ReplicaLoad, in_flight: int, replicas: int) -> None:
        """Take over what a replica reported with a response.

        Args:
            load: of that replica.
            in_flight: requests that this ingress replica has at the expert.
            replicas: of the expert, over which requests are spread about evenly.
        """
        count = max(1, replicas)
        self._others = max(0.0, (load.running + load.waiting) * count - in_flight)
        self._reported_at = self._clock()
        self._cold_since = None
        running = float(max(1, load.running) * count)
        if self._capacity is not None:
            # Requests may wait for a short time for another reason than the number that runs.
            lower = self._capacity + CAPACITY_SMOOTHING * (running - self._capacity)
            self._capacity = max(running, lower if load.waiting else self._capacity)
        elif load.waiting:
            self._capacity = running

    def others(self) -> float:
        """Requests of other ingress replicas at the expert, as reported last; they fade."""
        return float(self._others * 0.5 ** ((self._clock() - self._reported_at) / HALF_LIFE_S))

    def begun(self, uncached_tokens: int, in_flight: int, slots: int) -> Begun:
        """Note what a request meets that goes to the expert now."""
        if self.trust() < 1:
            # Responses so long ago say little now: the next few count most.
            self._ttft.loosen()
            self._token.loosen()
            self._patience_s = min(2 * self._patience_s, MOST_PATIENCE_S)
        else:
            self._patience_s = PATIENCE_S
        self._called_at = self._clock()
        total = in_flight + self.others()
        running = round(min(total, self._most(slots)))
        return Begun(uncached_tokens, running, self._wait_s(total - 1, slots))

    def first_byte(self, begun: Begun, seconds: float) -> None:
        """Learn from the time to a stream's first byte."""
        x = (float(begun.uncached_tokens), float(begun.in_flight))
        if begun.waited_s == 0:
            self._ttft.observe(seconds, x)
            self._first_speeds = followed(self._first_speeds, self._ttft.coefficients)
        elif begun.waited_s > MIN_WAIT_S:
            # What a queue adds is no property of the engine: it would still count once the queue is gone.
            waited = min(2.0, max(0.0, seconds - self._ttft.at(*x)) / begun.waited_s)
            ratio = self._wait_ratio * (1 + WAIT_SMOOTHING * (waited - 1))
            self._wait_ratio = min(MOST_WAIT_RATIO, max(1 / MOST_WAIT_RATIO, ratio))

    def ended(self, begun: Begun, seconds: float, tokens: float, first_s: float | None) -> None:
        """Learn from a response that came to its end.

        Args:
            begun: what it met.
            seconds: from the call to its end.
            tokens: of the answer.
            first_s: time to its first byte, where it was a stream.
        """
        self._responses += 1
        before_s = first_s
        alone_s = self._ttft.at(float(begun.uncached_tokens), float(begun.in_flight))
        if before_s is None:
            before_s = begun.waited_s + alone_s
        served_s = alone_s + max(0.0, seconds - before_s)
        self._service_s += (served_s - self._service_s) * max(SERVICE_SMOOTHING, 1 / self._responses)
        (self._usual_service_s,) = followed((self._usual_service_s,), (self._service_s,))
        if tokens >= 1:
            steps = max(1.0, tokens - 1) if first_s is not None else tokens
            token_s = max(0.0, seconds - before_s) / steps
            self._token.observe(token_s, (float(begun.in_flight),))
            self._token_speeds = followed(self._token_speeds, self._token.coefficients)

    def started(self, seconds: float) -> None:
        """Learn how long a start from zero replicas took."""
        self._start_s = seconds
        self._cold_since = None

    def begins_to_start(self) -> None:
        """Note that a start from zero replicas begins now."""
        if self._cold_since is None:
            self._cold_since = self._clock()

    def begins_no_more(self) -> None:
        """Note that the start failed."""
        self._cold_since = None

    def start_s(self) -> float:
        """Seconds until a replica runs, for an expert that has none."""
        usual = ASSUMED_START_S if self._start_s is None else self._start_s
        if self._cold_since is None:
            return usual
        # One that takes longer than usual may take as long again as a quarter of it, not no time at all.
        return max(usual / 4, usual - (self._clock() - self._cold_since))

    def trust(self) -> float:
        """Share of an expected time that counts where a limit excludes slow experts.

        It falls while no request goes to the expert: what was slow once is not excluded forever.
        """
        silent_s = self._clock() - self._called_at - self._patience_s
        return float(0.5 ** (max(0.0, silent_s) / self._patience_s))

    def now(
        self,
        in_flight: int,
        slots: int,
        *,
        cached_tokens: int = 0,
        cold: bool = False,
        idle: bool = False,
    ) -> ExpertLoad | None:
        """What one more request would meet; `None` before it is known.

        Args:
            in_flight: requests of this ingress replica at the expert, or waiting for it.
            slots: requests that this ingress replica sends there at once.
            cached_tokens: tokens of the prompt that the expert holds from an earlier request.
            cold: whether no replica runs.
            idle: whether to leave out what others have in flight.
        """
        if cold:
            return self._at_start()
        if not self.is_known:
            return None
        total = in_flight + (0.0 if idle else self.others())
        capacity = self._most(slots)
        fixed, prefill, each = self._first_speeds
        token, slower = self._token_speeds
        together = min(total + 1, capacity)
        queued_s = self._wait_s(total, slots)
        return ExpertLoad(
            wait_s=fixed + each * together + queued_s,
            prefill_s_per_token=prefill,
            s_per_output_token=token + slower * together,
            cached_tokens=cached_tokens,
            added_wait_s=self._usual_service_s / capacity,
            added_s_per_output_token=slower,
            free_slots=max(0.0, capacity - total - 1),
            queued_s=queued_s,
        )

    def _at_start(self) -> ExpertLoad:
        _, prefill, _ = self._ttft.coefficients
        return ExpertLoad(self.start_s(), prefill, self._token.at(1.0))

    def _most(self, slots: int) -> float:
        return float(slots) if self._capacity is None else min(float(slots), self._capacity)

    def _wait_s(self, before: float, slots: int) -> float:
        """Wait of a request that so many are before: slots come free as responses end."""
        capacity = self._most(slots)
        return max(0.0, before + 1 - capacity) * self._wait_ratio * self._service_s / capacity
