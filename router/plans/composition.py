"""Costs and times of a policy's plans in one batch, composed from their members' current ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from router.core import ExpertView, FloatArray, PlanView
from router.plans.plan import Calls, Plan
from router.plans.plan_set import PlanSet


@dataclass(frozen=True)
class Composed:
    """What is expected of every plan, [n, plans] each."""

    plans: PlanSet
    p_accept: FloatArray
    costs: FloatArray
    """US$: everything called, and the `else` expert by its probability."""
    holds: FloatArray
    """Milliseconds until the answer is accepted or rejected: the slowest member's end, or a beginning's."""
    waits: FloatArray
    """Milliseconds to the client's first token."""
    latencies: FloatArray
    """Milliseconds to the end of the answer."""
    queues: FloatArray
    """Milliseconds of them that are due to other requests."""
    imposed: FloatArray
    """Milliseconds added to those of others by all calls."""

    @classmethod
    def of(
        cls,
        plans: PlanSet,
        p_accept: FloatArray,
        costs: FloatArray | None,
        waits: FloatArray,
        latencies: FloatArray,
        names: Sequence[str],
        queues: FloatArray | None = None,
        imposed: FloatArray | None = None,
    ) -> Self:
        """Compose a batch.

        Args:
            plans: of the policy.
            p_accept: [n, plans].
            costs: [n, experts] US$; NaN or `None` where unknown.
            waits: [n, experts] milliseconds to the first token; NaN where unknown.
            latencies: [n, experts] milliseconds to the end of the answer; NaN where unknown.
            names: the experts, in the order of their columns.
            queues: [n, experts] milliseconds that are due to other requests; NaN or `None` where unknown.
            imposed: [n, experts] milliseconds added to those of others, likewise.
        """
        holds = np.empty(p_accept.shape)
        for at, (plan, calls) in enumerate(zip(plans.plans, plans.calls, strict=True)):
            members = [names.index(name) for name in plan.ask]
            held = latencies[:, members]
            if calls.held < 1:
                held = waits[:, members] + calls.held * (held - waits[:, members])
            holds[:, at] = held.max(axis=1)
        spent = np.full(p_accept.shape, np.nan)
        if costs is not None:
            spent = composed_costs(plans.plans, plans.calls, p_accept, costs, names)
        other = [names.index(plan.otherwise) for plan in plans.plans]
        rejected = 1 - p_accept
        queued = np.full(p_accept.shape, np.nan)
        if queues is not None:
            queued = _slowest(plans.plans, queues, names) + rejected * queues[:, other]
        ends = p_accept * _slowest(plans.plans, latencies, names) + rejected * (holds + latencies[:, other])
        added: FloatArray = np.zeros(p_accept.shape)
        if imposed is not None:
            added = composed_costs(plans.plans, plans.calls, p_accept, imposed, names)
        return cls(
            plans,
            p_accept,
            spent,
            holds,
            waits=holds + rejected * waits[:, other],
            latencies=ends,
            queues=queued,
            imposed=added,
        )

    def view(self, row: int, name: str, view: ExpertView) -> PlanView:
        """A plan's view in a decision, from its view as a candidate."""
        at = self.plans.names.index(name)
        plan, hold = self.plans.plans[at], float(self.holds[row, at])
        return PlanView(
            view,
            plan.ask,
            plan.samples,
            plan.otherwise,
            float(self.p_accept[row, at]),
            None if np.isnan(hold) else hold,
        )


def _slowest(plans: Sequence[Plan], times: FloatArray, names: Sequence[str]) -> FloatArray:
    """The longest time of each plan's members, [n, plans]."""
    slowest: FloatArray = np.stack(
        [times[:, [names.index(name) for name in plan.ask]].max(axis=1) for plan in plans], axis=1
    )
    return slowest


def composed_costs(
    plans: Sequence[Plan],
    calls: Sequence[Calls],
    p_accept: FloatArray,
    costs: FloatArray,
    names: Sequence[str],
) -> FloatArray:
    """Expected US$, [n, plans]: everything called, and the `else` expert by its probability.

    Args:
        plans: in column order.
        calls: of each plan.
        p_accept: [n, plans].
        costs: [n, experts] US$; NaN where unknown.
        names: the experts, in the order of their columns.
    """
    single = [costs[:, [names.index(name) for name in plan.ask]].sum(axis=1) for plan in plans]
    accepted, rejected = (
        np.array([getattr(one, name) for one in calls]) for name in ("accepted", "rejected")
    )
    other = costs[:, [names.index(plan.otherwise) for plan in plans]]
    called = np.stack(single, axis=1) * (p_accept * accepted + (1 - p_accept) * rejected)
    spent: FloatArray = called + (1 - p_accept) * other
    return spent
