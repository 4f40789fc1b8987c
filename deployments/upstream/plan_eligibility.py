"""Which plans are ineligible for a request, and the reason: what only the ingress knows of it.

The policy excludes plans of ineligible experts, and those that cost or hold too much.
"""

from deployments.contracts.messages import ServedPlan
from deployments.contracts.requests import InferenceRequest
from deployments.upstream.eligibility import EXCLUDED, NOT_LISTED
from deployments.upstream.registry import ExpertRegistry


def allows_plans(request: InferenceRequest, registry: ExpertRegistry) -> bool:
    """Whether the policy has plans, and the request does not switch them off."""
    has_plans = registry.policy is not None and bool(registry.policy.plans)
    return has_plans and request.routing.plans is not False


def plan_exclusions(request: InferenceRequest, registry: ExpertRegistry) -> dict[str, str]:
    """Plan → why it is ineligible for this request; an eligible plan has no entry."""
    plans = {} if registry.policy is None else registry.policy.plans
    common = _reason_for_all(request)
    reasons = {name: common or _reason(request, served, registry) for name, served in plans.items()}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _reason_for_all(request: InferenceRequest) -> str | None:
    evidence = request.endpoint.evidence
    if "text" not in evidence:
        return f"plans cannot read responses of {request.path}"
    if request.sequences != 1:
        return "the request is for several completions"
    if request.for_plans.has_logprobs:
        return "the request has log-probabilities of its own"
    if request.for_plans.has_tool_results:
        return "the request contains tool results"
    return None


def _reason(request: InferenceRequest, served: ServedPlan, registry: ExpertRegistry) -> str | None:
    plan, evidence = served.plan, request.endpoint.evidence
    if plan.name in request.routing.exclude:
        return EXCLUDED
    listed = request.routing.experts
    if listed is not None and plan.name not in listed and not registry.experts.keys() >= set(listed):
        return NOT_LISTED  # a list of experts alone leaves their plans eligible
    limit = request.routing.max_calls
    if limit is not None and plan.most_answers > limit:
        return f"may call experts {plan.most_answers} times, more than max_calls {limit}"
    if plan.hold_tokens is not None and not request.stream:
        return "judges the beginning of a stream, and the request does not stream"
    needs_logprobs = served.model.needs_logprobs or plan.hold_tokens is not None
    if needs_logprobs and "logprobs" not in evidence:
        return f"reads log-probabilities, which {request.path} does not have"
    elsewhere = [
        name
        for name in plan.ask
        if name in registry.experts and registry.experts[name].target.url is not None
    ]
    if needs_logprobs and elsewhere:
        return f"reads log-probabilities, and {elsewhere[0]} is not an engine of this graph"
    return _reason_of_vote(request, evidence) if plan.is_vote else None


def _reason_of_vote(request: InferenceRequest, evidence: frozenset[str]) -> str | None:
    if "samples" not in evidence:
        return f"samples several answers, which {request.path} does not have"
    if not request.for_plans.temperature or request.for_plans.temperature < 0:
        return "samples several answers, and the request has no temperature above 0"
    if request.for_plans.has_seed:
        return "samples several answers, and the request has a seed"
    return None
