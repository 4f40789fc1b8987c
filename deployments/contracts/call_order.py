"""The experts to call for one request, in their order, and the reason; one home for all that read it.

Pure values. `/v1/route` shows what generation does because both read the same `CallOrder`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from router.core import Decision, ExpertLoad, ExpertView
from router.decide import reasons as reasons_of_decision
from router.plans.acceptance import AcceptanceModel
from router.plans.plan import Plan

Reason = Literal["routed", "named", "explored", "fallback_router", "fallback_expert"]
"""Why an expert responds, the value of `x-router-reason`."""
StaticCause = Literal["timeout", "no_replica", "no_policy"]
"""Why the static ranking replaces a decision of the router."""
STARTING_RETRY_S = 10.0
"""Retry-After for an expert that has no replica yet: an engine starts in tens of seconds."""


@dataclass(frozen=True, slots=True)
class PlanToCarryOut:
    """A plan that a decision chose, with what its acceptance needs."""

    plan: Plan
    model: AcceptanceModel
    """Of the policy that decided."""
    scores: Mapping[str, float | None]
    """Expert → its score for this query."""
    p_accept: float
    """Predicted probability that the members' answer is accepted."""

    @property
    def reads_logprobs(self) -> bool:
        """Whether log-probabilities must be requested; of a vote also to count each sample's tokens."""
        return self.model.needs_logprobs or self.plan.hold_tokens is not None or self.plan.is_vote


@dataclass(frozen=True, slots=True)
class CallOrder:
    """The experts to call, first to last."""

    ranking: tuple[str, ...]
    reason: Reason
    fallback: bool
    """Whether the experts after the first may respond."""
    decision: Decision
    """What the ranking was taken from; without scores where no policy scored the query."""
    scale_up: tuple[str, ...] = ()
    """Experts scaled to zero that would otherwise have come first."""
    cause: StaticCause | None = None
    """Why the static ranking is used; `None` where it is not."""
    named: str | None = None
    """The expert that the request named; it comes after the others while it has no replica."""
    plan: PlanToCarryOut | None = None
    """The plan that comes first; the ranking is for when it cannot be carried out."""
    cached_tokens: Mapping[str, int] = field(default_factory=dict)
    """Expert → tokens of the prompt that it holds from the conversation's turns before."""
    load: Mapping[str, ExpertLoad] = field(default_factory=dict)
    """Expert → its load as the decision saw it; empty where time had no price."""

    @property
    def policy_id(self) -> str | None:
        """The policy that decided, or whose static ranking is used."""
        return self.decision.policy_id or None

    @property
    def views(self) -> Mapping[str, ExpertView]:
        """A view of each expert that the decision knows."""
        return self.decision.experts

    def predicted(self, expert: str, plan: str | None) -> ExpertView | None:
        """What was predicted of a response: of the plan that was carried out, else of the expert."""
        planned = None if plan is None else self.decision.plans.get(plan)
        return self.views.get(expert) if planned is None else planned.view

    def reason_for(self, expert: str) -> Reason:
        """Why this expert responds."""
        if self.plan is not None and expert in self.plan.plan.experts:
            return self.reason
        return self.reason if expert == (self.named or self.ranking[0]) else "fallback_expert"

    def sentences(self) -> dict[str, str]:
        """Expert → one sentence: why it comes first, why it comes later, or why it is excluded."""
        if self.reason == "named":
            return {
                name: "named by the request" if name == self.named else "fallback of the named expert"
                for name in self.views
            }
        sentences = reasons_of_decision(self.decision)
        if self.reason == "explored":
            sentences[self.ranking[0]] = "drawn at random, for the log to show what it would give"
        return sentences | {
            name: f"{sentences[name]}; no replica runs, so the next in the ranking responds"
            for name in self.scale_up
            if name != self.ranking[0]
        }
