"""The plans of a policy, with their acceptance models and probabilities of acceptance; saved and restored."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, Self

import numpy as np

from router.core import BoolArray, FloatArray, QueryBatch, RouteRequest
from router.errors import ManifestError, WeightsError
from router.methods.linear import LinearRouter
from router.plans.acceptance import FEATURES, AcceptanceModel
from router.plans.plan import Calls, Plan, check_plans

RATE_PENALTY = 100.0
"""Of the ridge regression of acceptance on the query."""


@dataclass(frozen=True)
class PlanSet:
    """Plans in the order of their score columns."""

    plans: tuple[Plan, ...]
    models: tuple[AcceptanceModel, ...]
    rates: LinearRouter
    """Query → the probability that each plan accepts."""
    mean_rates: FloatArray  # [plans] for queries unlike all training queries
    calls: tuple[Calls, ...]
    """What each plan's calls take, beside its members' complete answers."""
    experts: tuple[str, ...]
    """The pool when the plans were learnt: its columns come before the plans', later experts' behind."""

    def __len__(self) -> int:
        return len(self.plans)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(plan.name for plan in self.plans)

    def columns(self, width: int) -> list[int]:
        """The method's columns in the order experts, plans, of `width` columns in all."""
        first, end = len(self.experts), len(self.experts) + len(self.plans)
        return [*range(first), *range(end, width), *range(first, end)]

    def p_accept(self, queries: QueryBatch, unfamiliar: BoolArray) -> FloatArray:
        """Predicted probability that each plan accepts its members' answer, [n, plans]."""
        return np.where(unfamiliar[:, None], self.mean_rates, self.rates.score(queries))

    def exclude(self, reasons: dict[str, str], request: RouteRequest, holds: FloatArray) -> None:
        """Add the reasons for which plans are ineligible for a request.

        Args:
            reasons: ineligible expert → reason; costs and waits are the policy's to check.
            request: the request.
            holds: [plans] expected milliseconds until acceptance is known; NaN where unknown.
        """
        for plan, hold in zip(self.plans, holds.tolist(), strict=True):
            out = [name for name in plan.experts if name in reasons]
            if not request.plans:
                reasons[plan.name] = "plans are off for this request"
            elif plan.name in request.excluded:
                reasons[plan.name] = request.excluded[plan.name]
            elif out:
                reasons[plan.name] = f"{out[0]} is ineligible: {reasons[out[0]]}"
            elif request.max_hold_ms is not None and hold > request.max_hold_ms:
                reasons[plan.name] = (
                    f"expected to hold the answer for {hold:.0f} ms, more than {request.max_hold_ms:.0f} ms"
                )
            elif request.preferences.max_ttft_ms is not None and hold != hold:
                reasons[plan.name] = "the time that it holds the answer is unknown, and max_ttft_ms is set"
            elif request.preferences.max_latency_ms is not None and hold != hold:
                reasons[plan.name] = "the time that it holds the answer is unknown, and max_latency_ms is set"

    def to_json(self) -> list[dict[str, Any]]:
        """The plans for the manifest; the numbers of their models are arrays."""
        return [
            {**plan.to_json(), "acceptance": {"kind": "logistic", "features": list(FEATURES)}}
            for plan in self.plans
        ]

    def arrays(self) -> dict[str, FloatArray]:
        """The models, as named arrays for safetensors."""
        found = {f"rates.{name}": value for name, value in self.rates.arrays().items()}
        found["mean_rates"] = self.mean_rates
        found["calls"] = np.array([astuple(calls) for calls in self.calls])
        for at, model in enumerate(self.models):
            found |= {f"{at}.{name}": value for name, value in model.arrays().items()}
        return found

    @classmethod
    def restore(
        cls, facts: Sequence[Mapping[str, Any]], arrays: Mapping[str, FloatArray], experts: Sequence[str]
    ) -> Self:
        """The plans again, from the manifest's list and the arrays.

        Raises:
            ManifestError: a plan's acceptance model reads other features than this build.
            PlanError: a plan is malformed or names an expert that is not in `experts`.
            WeightsError: arrays are missing or do not fit.
        """
        plans = []
        for entry in facts:
            known = {name: value for name, value in entry.items() if name != "acceptance"}
            plans.append(Plan.from_json(known))
            if (entry.get("acceptance") or {}).get("features") != list(FEATURES):
                raise ManifestError(
                    f"the acceptance model of plan {plans[-1].name!r} reads other signals than this build"
                )
        check_plans(plans, experts)
        parts = {
            prefix: {
                name.removeprefix(f"{prefix}."): value
                for name, value in arrays.items()
                if name.startswith(f"{prefix}.")
            }
            for prefix in ("rates", *map(str, range(len(plans))))
        }
        if "mean_rates" not in arrays or arrays["mean_rates"].shape != (len(plans),):
            raise WeightsError("plans need the array mean_rates, one value for each")
        calls = arrays.get("calls", np.array([[plan.samples, plan.samples, 1.0] for plan in plans]))
        if calls.shape != (len(plans), len(fields(Calls))):
            raise WeightsError("plans need three values of each plan in the array calls")
        return cls(
            tuple(plans),
            tuple(AcceptanceModel.restore(parts[str(at)]) for at in range(len(plans))),
            LinearRouter.restore({"penalty": RATE_PENALTY}, parts["rates"]),
            arrays["mean_rates"],
            tuple(Calls(*values) for values in calls.tolist()),
            tuple(experts),
        )
