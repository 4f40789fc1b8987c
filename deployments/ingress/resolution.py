"""From a model name to a `CallOrder`: a named expert, a decision of the router, or the static ranking.

`/v1/route` and generation share this function, so the one shows what the other does.
"""

import logging
from collections.abc import Collection, Mapping
from types import MappingProxyType

from deployments.config import AUTO
from deployments.contracts.call_order import STARTING_RETRY_S, CallOrder, PlanToCarryOut, Reason, StaticCause
from deployments.contracts.errors import BadRequest, ErrorCode, NotAllowed, NotFound, Unavailable
from deployments.contracts.messages import NO_TRACE, TraceContext
from deployments.contracts.protocols import Decider
from deployments.contracts.requests import InferenceRequest
from deployments.upstream.eligibility import (
    called_last,
    check_fields,
    check_lists,
    exclusions,
    none_left,
    starting_reason,
    static_ranking,
    unavailable,
    variant_unmapped,
)
from deployments.upstream.plan_eligibility import allows_plans, plan_exclusions
from deployments.upstream.registry import ExpertRegistry
from router.core import UNSET, Decision, ExpertLoad, ExpertView, Preferences, RouteRequest

logger = logging.getLogger("ray.serve")

NOTHING_CACHED: Mapping[str, int] = MappingProxyType({})


async def resolve_model(
    request: InferenceRequest,
    registry: ExpertRegistry,
    router: Decider,
    *,
    deadline_s: float,
    allowed: Collection[str] | None = None,
    preset: str | None = None,
    trace: TraceContext = NO_TRACE,
    carries_out_plans: bool = True,
    cached_tokens: Mapping[str, int] = NOTHING_CACHED,
    request_id: str = "",
    unit: str | None = None,
) -> CallOrder:
    """Resolve a request's `model`.

    Args:
        request: the request.
        registry: the experts, the presets and the policy.
        router: decides for `auto` and presets.
        deadline_s: seconds that the router may take.
        allowed: the experts that the caller's key may use; `None` for all.
        preset: the preset that `auto` stands for with the caller's key.
        trace: the trace context for the router.
        carries_out_plans: whether plans are carried out; not for a client's retry.
        cached_tokens: expert → tokens of the prompt that it holds from the conversation's turns before.
        request_id: for the shadow's records; empty where there are none.
        unit: the conversation, else the request, that draws and canaries are decided for; `None` for neither.

    Raises:
        NotFound: the model is no expert, no preset and not `auto`.
        NotAllowed: the key may not use the named expert.
        BadRequest: no expert is eligible, the named one takes no images or not a field of the request, a
            list names an unknown expert, or the request refers to what another expert stored.
        Unavailable: no eligible expert is available now, or the named one is still starting.
    """
    check_lists(registry, request)
    check_fields(registry, request)
    away = unavailable(registry)
    if request.model in registry.experts:
        return _named(request, registry, away, allowed)
    if request.model != AUTO and request.model not in registry.config.presets:
        raise NotFound(
            f"the model {request.model[:128]!r} does not exist; GET /v1/models lists those that do",
            ErrorCode.MODEL_NOT_FOUND,
            "model",
        )
    if (field := request.stored_by_expert) is not None:
        raise BadRequest(
            f"{field} refers to a stored response, which one expert has: name it in model",
            ErrorCode.UNSUPPORTED_WITH_AUTO,
            field,
        )
    reasons = exclusions(registry, request, away, allowed)
    if not registry.experts.keys() - reasons.keys():
        raise none_left(reasons, away)
    settings = registry.config.presets.get(preset or "" if request.model == AUTO else request.model)
    preferences = request.routing.as_preferences()
    if settings is not None:
        preferences = preferences.over(settings.as_preferences())
    default = UNSET if registry.policy is None else registry.policy.preferences or UNSET
    wanted = preferences.over(default)
    prices_start = wanted.reads_times and not wanted.limits_times
    last, unpriced = (called_last(registry, prices_start=priced) for priced in (prices_start, False))
    plans = carries_out_plans and allows_plans(request, registry)
    route_request = RouteRequest(
        query=request.query,
        preferences=preferences,
        excluded=reasons | (plan_exclusions(request, registry) if plans else {}),
        prompt_tokens=request.tokens_to_query,
        max_tokens=request.max_tokens,
        ttft_ms=registry.ttft_ms(),
        latency_ms=registry.latency_ms() if plans or wanted.reads_times else {},
        load=_loads(registry, wanted, cached_tokens),
        plans=plans,
        max_hold_ms=1000 * registry.config.limits.max_hold_s,
        request_id=request_id,
        unit=unit,
        # A preset's preferences are not in the log, so a draw under them would show nothing.
        explore=settings is None and request.routing.explore is not False,
    )
    try:
        response = await router.decide(route_request, deadline_s, trace)
    except TimeoutError:
        why = f"no decision within {deadline_s * 1000:.0f} ms"
        return _static(request, registry, reasons, "timeout", why, unpriced)
    except ConnectionError as error:
        return _static(request, registry, reasons, "no_replica", f"no router replica: {error}", unpriced)
    decision = response.decision
    if decision is None:
        return _static(request, registry, reasons, "no_policy", response.no_policy, unpriced)
    if not decision.ranking:
        raise none_left(decision.exclusions, away)
    here = tuple(name for name in decision.ranking if name in registry.experts)
    if not here:
        why = "the router knows none of the experts that are configured here"
        return _static(request, registry, reasons, "no_policy", why, unpriced)
    ranking, scale_up = _warm_first(here, last)
    if prices_start:
        scale_up += tuple(name for name in _worth_a_start(decision, registry) if name not in scale_up)
    fallback = request.routing.fallback is not False
    plan = _first_plan(decision, registry)
    draw = decision.draw
    is_drawn = draw is not None and draw.explored and draw.action == ranking[0]
    reason: Reason = "explored" if is_drawn and plan is None else "routed"
    return CallOrder(ranking, reason, fallback, decision, scale_up, plan=plan, load=route_request.load)


def _loads(
    registry: ExpertRegistry, wanted: Preferences, cached_tokens: Mapping[str, int]
) -> Mapping[str, ExpertLoad]:
    if not wanted.reads_times and not wanted.limits_times:
        return {}
    return registry.loads(cached_tokens, limited=wanted.limits_times)


def _worth_a_start(decision: Decision, registry: ExpertRegistry) -> tuple[str, ...]:
    """Experts at zero replicas that would come first if they ran: later requests can have them."""
    views = {**decision.experts, **{name: plan.view for name, plan in decision.plans.items()}}
    first, weight = views[decision.ranking[0]], decision.preferences.latency_weight or 0.0
    found = []
    for name in decision.ranking[1:]:
        expert, view = registry.experts.get(name), views[name]
        if expert is None or not expert.state.is_cold or expert.target.cold != "priced":
            continue
        start_s = (view.wait_ms or 0.0) / 1000
        if (view.utility or 0.0) + weight * start_s > (first.utility or 0.0):
            found.append(name)
    return tuple(found)


def _first_plan(decision: Decision, registry: ExpertRegistry) -> PlanToCarryOut | None:
    """The plan that a decision ranks first; `None` where it is an expert."""
    first = decision.ranking[0]
    if first not in decision.plans:
        return None
    served = registry.plan(decision.policy_id, first)
    if served is None:
        logger.warning("plan %s of policy %s is not known here", first, decision.policy_id)
        return None
    scores = {name: view.score for name, view in decision.experts.items()}
    return PlanToCarryOut(served.plan, served.model, scores, decision.plans[first].p_accept)


def _named(
    request: InferenceRequest,
    registry: ExpertRegistry,
    away: Mapping[str, str],
    allowed: Collection[str] | None,
) -> CallOrder:
    if allowed is not None and request.model not in allowed:
        raise NotAllowed(
            f"this key may not use the model {request.model!r}", ErrorCode.MODEL_NOT_ALLOWED, "model"
        )
    if "vision" in request.needs - registry.experts[request.model].target.capabilities:
        # Its engine would fetch any URL in the request.
        raise BadRequest(
            f"the expert {request.model!r} takes text only: its capabilities lack vision",
            ErrorCode.NO_ELIGIBLE_EXPERT,
            "model",
        )
    if request.stored_by_expert == "input" and registry.experts[request.model].target.app is not None:
        # Its engine resolves no reference to an item, and would fail.
        raise BadRequest(
            f"the expert {request.model!r} stores no items: send them in place of item_reference",
            ErrorCode.NOT_SUPPORTED_BY_EXPERT,
            "input",
        )
    if (why := variant_unmapped(registry, request, request.model)) is not None:
        raise BadRequest(
            f"the expert {request.model!r} cannot serve this endpoint: {why}",
            ErrorCode.NOT_SUPPORTED_BY_EXPERT,
            "model",
        )
    fallback = request.routing.fallback is True
    ranking: tuple[str, ...] = (request.model,)
    if fallback:
        # The lists do not apply to the named expert, only to its fallbacks.
        reasons = exclusions(registry, request, away, allowed)
        ranking += tuple(
            name for name in static_ranking(registry) if name != request.model and name not in reasons
        )
    if (why := starting_reason(registry, request.model)) is not None:
        if len(ranking) == 1:
            text = f"the expert {request.model} is still starting ({why})"
            raise Unavailable(text, ErrorCode.EXPERT_STARTING, "model", STARTING_RETRY_S)
        ranking = (*ranking[1:], request.model)
    view = ExpertView(score=None, cost_usd=None, ttft_ms=None, eligible=True)
    decision = Decision(ranking, dict.fromkeys(ranking, view), policy_id="")
    return CallOrder(ranking, "named", fallback, decision, named=request.model)


def _warm_first(ranking: tuple[str, ...], last: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Experts with a replica before those without; and the latter that ranked before the first of them."""
    warm = tuple(name for name in ranking if name not in last)
    if not warm:
        return ranking, ranking[:1]
    better = ranking[: ranking.index(warm[0])]
    return (*warm, *(name for name in ranking if name in last)), better


def _static(
    request: InferenceRequest,
    registry: ExpertRegistry,
    reasons: Mapping[str, str],
    cause: StaticCause,
    why: str,
    last: Collection[str],
) -> CallOrder:
    """The policy's static ranking, as far as its experts are eligible."""
    logger.warning("static ranking used: %s", why, extra={"cause": cause})
    eligible = tuple(name for name in static_ranking(registry) if name not in reasons)
    if not eligible:
        raise none_left(reasons, {})
    ranking, scale_up = _warm_first(eligible, last)
    views = {
        name: ExpertView(None, None, None, eligible=name not in reasons, excluded_because=reasons.get(name))
        for name in registry.experts
    }
    decision = Decision(eligible, views, "" if registry.policy is None else registry.policy.policy_id)
    fallback = request.routing.fallback is not False
    return CallOrder(ranking, "fallback_router", fallback, decision, scale_up, cause)
