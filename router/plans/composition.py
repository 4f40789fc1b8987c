"""Costs and times of a policy's plans in one batch, composed from their members' current ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from router.core import ExpertView, FloatArray, PlanView
from router.plans.plan import Plan
from router.plans.plan_set import PlanSet


@dataclass(frozen=True)
class Composed:
    """What is expected of every plan, [n, plans] each."""

    plans: PlanSet
    p_accept: FloatArray
    costs: FloatArray
    """US$: everything called, and the `else` expert by its probability."""
    holds: FloatArray
    """Milliseconds until the answer is accepted or rejected: the slowest member's."""
    waits: FloatArray
    """Milliseconds to the client's first token."""

    @classmethod
    def of(
        cls,
        plans: PlanSet,
        p_accept: FloatArray,
        costs: FloatArray | None,
        waits: FloatArray,
        latencies: FloatArray,
        names: Sequence[str],
    ) -> Self:
        """Compose a batch.

        Args:
            plans: of the policy.
            p_accept: [n, plans].
            costs: [n, experts] US$; NaN or `None` where unknown.
            waits: [n, experts] milliseconds to the first token; NaN where unknown.
            latencies: [n, experts] milliseconds to the end of the answer; NaN where unknown.
            names: the experts, in the order of their columns.
        """
        holds = np.stack(
            [latencies[:, [names.index(name) for name in plan.ask]].max(axis=1) for plan in plans.plans],
            axis=1,
        )
        spent = np.full(p_accept.shape, np.nan)
        if costs is not None:
            spent = composed_costs(plans.plans, p_accept, costs, names)
        other = waits[:, [names.index(plan.otherwise) for plan in plans.plans]]
        return cls(plans, p_accept, spent, holds, holds + (1 - p_accept) * other)

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


def composed_costs(
    plans: Sequence[Plan], p_accept: FloatArray, costs: FloatArray, names: Sequence[str]
) -> FloatArray:
    """Expected US$, [n, plans]: everything called, and the `else` expert by its probability.

    Args:
        plans: in column order.
        p_accept: [n, plans].
        costs: [n, experts] US$; NaN where unknown.
        names: the experts, in the order of their columns.
    """
    called = [costs[:, [names.index(name) for name in plan.ask]].sum(axis=1) * plan.samples for plan in plans]
    other = costs[:, [names.index(plan.otherwise) for plan in plans]]
    spent: FloatArray = np.stack(called, axis=1) + (1 - p_accept) * other
    return spent
