"""Assign a batch one after the other: what is decided for one request is load for the next.

Knows no clock and no request in flight: loads come with the requests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np

from router.core import BoolArray, Decision, ExpertLoad, FloatArray
from router.plans.composition import Composed
from router.plans.plan_set import PlanSet

UNKNOWN = (float("nan"),) * 4
BEHIND = 2.0
"""Requests that wait behind one in a queue, as its price counts them; more where more come, but unknown."""


class Times(NamedTuple):
    """Expected milliseconds of one request on every expert, [experts]; NaN where no load is known."""

    queue: FloatArray
    """Due to other requests."""
    ttft: FloatArray
    latency: FloatArray
    imposed: FloatArray
    """What the request adds to the times of those behind it, all together."""


@dataclass(frozen=True)
class Predicted:
    """What is predicted of a batch before anything is weighed."""

    quality: FloatArray  # [n, candidates] in [0, 1]
    unfamiliar: BoolArray  # [n]
    p_accept: FloatArray | None  # [n, plans]
    costs: FloatArray | None  # [n, experts] US$
    waits: FloatArray  # [n, experts] milliseconds to the first token
    latencies: FloatArray | None  # [n, experts] milliseconds to the end; `None` where nothing needs them
    queues: FloatArray | None = None  # [n, experts] milliseconds due to other requests
    imposed: FloatArray | None = None  # [n, experts] milliseconds added to the times of others

    def row(self, index: int) -> Self:
        """One row alone."""
        if len(self.quality) == 1:
            return self
        one = slice(index, index + 1)
        return type(self)(
            self.quality[one],
            self.unfamiliar[one],
            None if self.p_accept is None else self.p_accept[one],
            None if self.costs is None else self.costs[one],
            self.waits[one],
            None if self.latencies is None else self.latencies[one],
            None if self.queues is None else self.queues[one],
            None if self.imposed is None else self.imposed[one],
        )

    @property
    def priced_s(self) -> FloatArray | None:
        """Seconds that a price on time is for: those of a request, and those that it adds to others'."""
        if self.latencies is None or self.imposed is None:
            return None if self.latencies is None else self.latencies / 1000
        seconds: FloatArray = (self.latencies + self.imposed) / 1000
        return seconds

    def composed(self, plans: PlanSet, names: Sequence[str]) -> Composed | None:
        """What follows for the plans of experts with these names; `None` where no times are predicted."""
        if self.p_accept is None or self.latencies is None:
            return None
        return Composed.of(
            plans, self.p_accept, self.costs, self.waits, self.latencies, names, self.queues, self.imposed
        )

    def beside(self, composed: Composed) -> Self:
        """The experts' columns, then those of the plans."""

        def both(mine: FloatArray | None, of_plans: FloatArray) -> FloatArray | None:
            return None if mine is None else np.hstack([mine, of_plans])

        return replace(
            self,
            costs=both(self.costs, composed.costs),
            waits=np.hstack([self.waits, composed.waits]),
            latencies=both(self.latencies, composed.latencies),
            queues=both(self.queues, composed.queues),
            imposed=both(self.imposed, composed.imposed),
        )

    def with_times(self, times: Times) -> Self:
        """The same row with these times, where they are known."""
        known = np.isfinite(times.latency)
        if known.all():
            return type(self)(
                self.quality,
                self.unfamiliar,
                self.p_accept,
                self.costs,
                times.ttft[None, :],
                times.latency[None, :],
                times.queue[None, :],
                times.imposed[None, :],
            )
        before = np.full(self.waits.shape, np.nan) if self.latencies is None else self.latencies
        return replace(
            self,
            waits=np.where(known, times.ttft, self.waits),
            latencies=np.where(known, times.latency, before),
            queues=times.queue[None, :],
            imposed=np.where(known, times.imposed, 0.0)[None, :],
        )


class Queue:
    """Requests that were assigned to each expert, and that no load contains yet.

    Args:
        names: the experts, in the order of their columns.
        ahead: expert → requests assigned before.
    """

    def __init__(self, names: Sequence[str], ahead: Mapping[str, float]) -> None:
        self._columns = {name: column for column, name in enumerate(names)}
        self.ahead = [ahead.get(name, 0.0) for name in names]

    def add(self, decision: Decision) -> None:
        """Add the calls that a decision will cause; an `else` expert counts by its probability."""
        if not decision.ranking:
            return
        first = decision.candidate
        if first not in decision.plans:
            self.ahead[self._columns[first]] += 1
            return
        plan = decision.plans[first]
        for name in plan.ask:
            self.ahead[self._columns[name]] += plan.samples
        self.ahead[self._columns[plan.otherwise]] += 1 - plan.p_accept


def times(
    load: Mapping[str, ExpertLoad],
    prompt_tokens: FloatArray,
    completion_tokens: FloatArray,
    queue: Queue,
    names: Sequence[str],
) -> Times:
    """Expected times of one request: wait + prefill of what is not cached + tokens of the answer.

    With what it adds to those of requests behind it.

    Args:
        load: expert → its load.
        prompt_tokens: [experts] as each expert counts them.
        completion_tokens: [experts] expected of each.
        queue: what was assigned before.
        names: the experts, in the order of their columns.
    """
    # A loop: with a few experts it is several times faster than arrays.
    rows = []
    columns = zip(names, queue.ahead, prompt_tokens.tolist(), completion_tokens.tolist(), strict=True)
    for name, before, prompt, completion in columns:
        if (one := load.get(name)) is None:
            rows.append(UNKNOWN)
            continue
        free = one.free_slots
        added_s = max(before - free, 0.0) * one.added_wait_s
        together = min(before, free) if one.added_wait_s > 0 else before
        waiting = one.wait_s + added_s
        ttft = waiting + one.prefill_s_per_token * max(prompt - one.cached_tokens, 0.0)
        token_s = one.s_per_output_token + together * one.added_s_per_output_token
        imposed = BEHIND * (one.queued_s + added_s)
        rows.append((waiting, ttft, ttft + token_s * completion, imposed))
    return Times(*(1000 * np.array(rows, dtype=np.float64)).T)
