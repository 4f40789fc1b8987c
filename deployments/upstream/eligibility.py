"""Which experts are ineligible for a request, and the reason; pure functions over the registry."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deployments.contracts.errors import BadRequest, ErrorCode, Unavailable
from deployments.contracts.forbidden_fields import FORBIDDEN_FIELDS
from deployments.contracts.requests import InferenceRequest
from deployments.contracts.variants import unmapped
from deployments.upstream.registry import ExpertRegistry

FAR_OVER = 1.5
"""An estimated length excludes an expert beyond so many of its windows: the engine itself counts exactly."""
CONTEXT = "context window"
"""How a reason begins when an expert is excluded for the request's length alone."""
FORBIDDEN = "forbidden fields:"
"""How a reason begins when an expert is excluded for dangerous fields."""
NOT_HERE = "not configured at the ingress"
"""The reason for an expert that only the policy knows."""
BREAKER_OPEN = "circuit breaker open"
NOT_LOADED = "its adapter is not loaded"
NOT_LISTED = "not in routing.experts"
EXCLUDED = "in routing.exclude"
NOT_ALLOWED = "not allowed for this key"
CHOSEN = frozenset({NOT_LISTED, EXCLUDED, NOT_ALLOWED})
"""Reasons that the caller or its key chose: they are no property of the request."""


@dataclass(frozen=True, slots=True)
class Part:
    """One line of `/ready`."""

    ready: bool
    why: str = ""


def static_ranking(registry: ExpertRegistry) -> tuple[str, ...]:
    """Configured experts, best first, for requests without a decision."""
    known = () if registry.policy is None else registry.policy.static_ranking
    names = [name for name in known if name in registry.experts]
    return (*names, *(name for name in registry.experts if name not in names))


def context_window(registry: ExpertRegistry, name: str) -> int | None:
    """Tokens of prompt and answer together that an expert takes.

    The configuration's value, else the expert's own, else the policy's.
    """
    expert = registry.experts.get(name)
    if expert is not None and expert.target.context_window is not None:
        return expert.target.context_window
    if expert is not None and expert.state.context_window is not None:
        return expert.state.context_window
    return None if registry.policy is None else registry.policy.context_windows.get(name)


def starting_reason(registry: ExpertRegistry, name: str) -> str | None:
    """Why no replica of an expert runs although one should.

    Returns:
        `None` where a replica runs, or where a request would start one.
    """
    expert = registry.experts.get(name)
    if expert is None or not expert.state.is_cold or expert.state.scaled_to_zero:
        return None
    return expert.state.why_not_ready


def unavailable(registry: ExpertRegistry) -> dict[str, str]:
    """Expert → why it cannot be called now, whatever the request."""
    reasons = {}
    for name, expert in registry.experts.items():
        if expert.adapter_error is not None:
            reasons[name] = NOT_LOADED
        elif not expert.breaker.available():
            reasons[name] = BREAKER_OPEN
    return reasons


def called_last(registry: ExpertRegistry, *, prices_start: bool) -> frozenset[str]:
    """Experts without a replica whose requests go to the next in the ranking.

    Args:
        registry: the experts.
        prices_start: whether the time of a start was weighed in the ranking.
    """
    return frozenset(
        name
        for name, expert in registry.experts.items()
        if expert.state.is_cold
        and (expert.target.cold == "next" or (expert.target.cold == "priced" and not prices_start))
    )


def exclusions(
    registry: ExpertRegistry,
    request: InferenceRequest,
    unavailable: Mapping[str, str],
    allowed: Iterable[str] | None,
) -> dict[str, str]:
    """Expert → why it is ineligible for this request; an eligible expert has no entry.

    Args:
        registry: the experts and the policy.
        request: the request.
        unavailable: expert → why it cannot be called now.
        allowed: the experts that the caller's key may use; `None` for all.
    """
    permitted = None if allowed is None else set(allowed)
    reasons: dict[str, str] = {}
    for name, expert in registry.experts.items():
        if request.routing.experts is not None and name not in request.routing.experts:
            reasons[name] = NOT_LISTED
        elif name in request.routing.exclude:
            reasons[name] = EXCLUDED
        elif permitted is not None and name not in permitted:
            reasons[name] = NOT_ALLOWED
        elif missing := sorted(request.needs - expert.target.capabilities):
            reasons[name] = f"cannot do: {', '.join(missing)}"
        elif missing_field := variant_unmapped(registry, request, name):
            reasons[name] = missing_field
        elif denied := forbidden_at(registry, request, name):
            reasons[name] = f"{FORBIDDEN} {', '.join(denied)}"
        elif (window := context_window(registry, name)) and (length := _length(request)) > FAR_OVER * window:
            reasons[name] = f"{CONTEXT} of {window} tokens is too small for about {length}"
        elif name in unavailable:
            reasons[name] = unavailable[name]
    for name in () if registry.policy is None else registry.policy.experts:
        if name not in registry.experts:
            reasons[name] = NOT_HERE
    return reasons


def variant_unmapped(registry: ExpertRegistry, request: InferenceRequest, name: str) -> str | None:
    """Why a request's endpoint cannot express an expert that is a variant; `None` where it can."""
    variant = registry.experts[name].target.variant
    return None if variant is None else unmapped(variant, request.endpoint)


def forbidden_at(registry: ExpertRegistry, request: InferenceRequest, name: str) -> tuple[str, ...]:
    """Fields of a request that an expert's configuration does not allow."""
    allowed = registry.config.forbidden_fields.allow.get(name, frozenset())
    return tuple(field for field in request.forbidden if field not in allowed)


def check_fields(registry: ExpertRegistry, request: InferenceRequest) -> None:
    """Check that some expert, or the named one, accepts a request's dangerous fields.

    Raises:
        BadRequest: none does; `param` is the first field that is forbidden.
    """
    names = (request.model,) if request.model in registry.experts else tuple(registry.experts)
    denied = [forbidden_at(registry, request, name) for name in names]
    if all(denied):
        field = denied[0][0]
        raise BadRequest(
            f"{field} is forbidden ({FORBIDDEN_FIELDS[field].why}): remove it, or allow it for an expert "
            "in forbidden_fields.allow",
            ErrorCode.FORBIDDEN_FIELD,
            field,
        )


def none_left(reasons: Mapping[str, str], unavailable: Mapping[str, str]) -> BadRequest | Unavailable:
    """The error for a request without an eligible expert, by the reasons of their exclusion."""
    reasons = {name: reason for name, reason in reasons.items() if reason != NOT_HERE}
    details = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    if any(reasons.get(name) == why for name, why in unavailable.items()):
        # An expert that could respond is away for now: that is worth a retry, unlike the rest.
        return Unavailable(f"no expert is available now ({details})", ErrorCode.NO_EXPERT_AVAILABLE)
    left = [reason for reason in reasons.values() if reason not in CHOSEN]
    if left and all(reason.startswith(CONTEXT) for reason in left):
        return BadRequest(
            f"the request is longer than the maximum context length of every expert ({details})",
            ErrorCode.CONTEXT_LENGTH_EXCEEDED,
            "messages",
        )
    return BadRequest(
        f"no expert is eligible for this request ({details})", ErrorCode.NO_ELIGIBLE_EXPERT, "routing"
    )


def check_lists(registry: ExpertRegistry, request: InferenceRequest) -> None:
    """Check that a request's allow and deny lists name experts and plans.

    Raises:
        BadRequest: a list has another name.
    """
    plans = () if registry.policy is None else registry.policy.plans
    lists = (("experts", request.routing.experts or ()), ("exclude", request.routing.exclude))
    for field_name, names in lists:
        if unknown := [name for name in names if name not in registry.experts and name not in plans]:
            known = f"experts: {', '.join(registry.experts)}"
            known += f"; plans: {', '.join(plans)}" if plans else ""
            raise BadRequest(
                f"routing.{field_name} names {unknown[0][:128]!r}, which is no expert"
                f"{' and no plan' if plans else ''}; {known}",
                ErrorCode.UNKNOWN_EXPERT,
                f"routing.{field_name}",
            )


PRIOR = "the policy in effect is made from priors, before any outcome; next: to-router start --probe"
"""What `/ready` and the page report of a policy from priors."""


def readiness(registry: ExpertRegistry) -> dict[str, Part]:
    """Readiness of the router and of every expert, for `/ready`."""
    error = registry.router_error
    prior = registry.policy is not None and registry.policy.is_prior
    parts = {"router": Part(error is None, error or _rolled_back(registry) or (PRIOR if prior else ""))}
    covered = None if registry.policy is None else registry.policy.experts
    if error is None and covered is not None:
        missing = [name for name in registry.experts if name not in covered]
        if missing:
            why = f"the policy in effect does not cover the experts {', '.join(missing)}"
            parts["router"] = Part(False, why)
    for name, expert in registry.experts.items():
        state = expert.state
        why = expert.why_not_ready or ("scaled to zero" if state.scaled_to_zero else "")
        parts[name] = Part(expert.why_not_ready is None, why)
    return parts


def _rolled_back(registry: ExpertRegistry) -> str:
    """That the configuration still names a canary that is rolled back; empty where it does not."""
    canary = registry.canary
    if canary is None or canary.rolled_back is None:
        return ""
    return (
        f"the canary {canary.policy.policy_id} is rolled back, although user_config names it: "
        f"{canary.rolled_back}"
    )


def _length(request: InferenceRequest) -> int:
    return request.longest_tokens + (request.max_tokens or 0)
