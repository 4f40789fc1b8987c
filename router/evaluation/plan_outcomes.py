"""Outcomes of a policy's plans on a data set, replayed with the policy's own acceptance models."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from router.core import FloatArray
from router.data.dataset import Dataset
from router.plans.plan import Plan
from router.plans.plan_set import PlanSet
from router.plans.replay import Recording, Replayed


@dataclass(frozen=True)
class PlanOutcomes:
    """Each plan on each query; NaN where a response or an outcome is missing."""

    plans: tuple[Plan, ...]
    replayed: tuple[Replayed, ...]

    @classmethod
    def of(cls, plans: PlanSet, dataset: Dataset, scores: FloatArray) -> "PlanOutcomes | None":
        """Replay the plans; `None` where the outcomes hold no responses.

        Args:
            plans: of the policy.
            dataset: outcomes of its experts.
            scores: [n, experts] of the policy.
        """
        recording = Recording(dataset)
        if not recording.has_responses:
            return None
        found = []
        for plan, model in zip(plans.plans, plans.models, strict=True):
            evidence = recording.evidence(plan, scores)
            found.append(recording.replay(plan, evidence, model.p_right_features(evidence.table)))
        return cls(plans.plans, tuple(found))

    @property
    def quality(self) -> FloatArray:
        """Measured quality, [n, plans]."""
        return np.stack([one.quality for one in self.replayed], axis=1)

    @property
    def costs_usd(self) -> FloatArray | None:
        """Measured cost, [n, plans]; `None` where the members' is not known."""
        known = [one.cost_usd for one in self.replayed if one.cost_usd is not None]
        return np.stack(known, axis=1) if len(known) == len(self.replayed) else None

    def measured(self, dataset: Dataset) -> Mapping[str, FloatArray]:
        """Column → its values with those of the plans, [n, experts + plans], composed from the members'."""
        found = {}
        for name in ("latency_s", "ttft_s", "completion_tokens"):
            if name in dataset.measured:
                columns = [
                    self._composed(name, plan, one, dataset)
                    for plan, one in zip(self.plans, self.replayed, strict=True)
                ]
                found[name] = np.column_stack([dataset.measured[name], *columns])
        if "nll" in dataset.measured:
            unknown = np.full((len(dataset), len(self.plans)), np.nan)
            found["nll"] = np.hstack([dataset.measured["nll"], unknown])
        return found

    def _composed(self, name: str, plan: Plan, one: Replayed, dataset: Dataset) -> FloatArray:
        members = [dataset.pool.column(expert) for expert in plan.ask]
        other = dataset.pool.column(plan.otherwise)
        rejected = one.accepted == 0
        if name == "completion_tokens":
            called = dataset.measured[name][:, members].sum(axis=1) * plan.samples
        else:  # nothing is sent before the slowest member's answer is complete
            latency = dataset.measured.get("latency_s", np.full(dataset.quality.shape, np.nan))
            called = latency[:, members].max(axis=1)
        total: FloatArray = called + np.where(rejected, dataset.measured[name][:, other], 0.0)
        return total
