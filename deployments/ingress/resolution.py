"""From a request to a ranking of experts: named, routed, or the static order when no decision comes.

`/v1/route` and generation go through the same function, so what the one says the other does.
"""

import logging
from collections.abc import Collection, Mapping

from deployments.config import AUTO
from deployments.contracts.call_order import STARTING_RETRY_S, CallOrder, StaticCause
from deployments.contracts.errors import BadRequest, NotAllowed, NotFound, Unavailable
from deployments.contracts.messages import NO_TRACE, TraceContext
from deployments.contracts.protocols import Decider
from deployments.contracts.requests import InferenceRequest
from deployments.upstream.eligibility import CONTEXT, NOT_HERE, Directory
from router.core import Decision, ExpertView, RouteRequest

logger = logging.getLogger("ray.serve")


async def choose(
    ask: InferenceRequest,
    directory: Directory,
    router: Decider,
    *,
    unavailable: Mapping[str, str],
    ttft_ms: Mapping[str, float],
    deadline_s: float,
    allowed: Collection[str] | None = None,
    passed_over: Collection[str] = (),
    preset: str | None = None,
    trace: TraceContext = NO_TRACE,
) -> CallOrder:
    """Resolve a request's `model`.

    Args:
        unavailable: expert → why it cannot answer now.
        ttft_ms: expert → expected time to first token.
        deadline_s: how long the router may take.
        allowed: the experts that the caller's key may use; `None` for all.
        passed_over: experts without a running replica, which come last in the ranking.
        preset: what `auto` stands for with the caller's key.
        trace: the trace context that the router gets.

    Raises:
        NotFound: the model is no expert, no preset and not `auto`.
        NotAllowed: the key may not use the named expert.
        BadRequest: no expert is left, the named one may not have images, or a list names a stranger.
        Unavailable: experts are left, but none can answer now; or the named one is still starting.
    """
    _check_lists(ask, directory)
    if ask.model in directory.config.experts:
        return _named(ask, directory, unavailable, allowed)
    if ask.model != AUTO and ask.model not in directory.config.presets:
        raise NotFound(
            f"the model {ask.model[:128]!r} does not exist; GET /v1/models lists those that do",
            "model_not_found",
            "model",
        )
    if ask.body.get("previous_response_id") is not None:
        raise BadRequest(
            "previous_response_id needs the expert that holds the stored response: name it in model",
            "unsupported_with_auto",
            "previous_response_id",
        )
    reasons = directory.exclusions(ask, unavailable, allowed)
    if not directory.config.experts.keys() - reasons.keys():
        raise none_left(reasons, unavailable)
    settings = directory.config.presets.get(preset or "" if ask.model == AUTO else ask.model)
    preferences = ask.routing.preferences
    if settings is not None:
        preferences = preferences.over(settings.as_preferences())
    request = RouteRequest(
        query=ask.query,
        preferences=preferences,
        excluded=reasons,
        prompt_tokens=ask.prompt_tokens,
        max_tokens=ask.max_tokens,
        ttft_ms=dict(ttft_ms),
    )
    try:
        response = await router.decide(request, deadline_s, trace)
    except TimeoutError:
        why = f"no decision within {deadline_s * 1000:.0f} ms"
        return _static(ask, directory, reasons, "timeout", why, passed_over)
    except ConnectionError as error:
        return _static(ask, directory, reasons, "no_replica", f"no router replica: {error}", passed_over)
    decision = response.decision
    if decision is None:
        return _static(ask, directory, reasons, "no_policy", response.no_policy, passed_over)
    if not decision.ranking:
        raise none_left(decision.exclusions, unavailable)
    here = tuple(name for name in decision.ranking if name in directory.config.experts)
    if not here:
        why = "the router knows none of the experts that are configured here"
        return _static(ask, directory, reasons, "no_policy", why, passed_over)
    ranking, scale_up = _warm_first(here, passed_over)
    fallback = ask.routing.fallback is not False
    return CallOrder(ranking, "routed", fallback, decision, scale_up)


def none_left(reasons: Mapping[str, str], unavailable: Mapping[str, str]) -> BadRequest | Unavailable:
    """The refusal when every expert was dropped, by why they were."""
    reasons = {name: reason for name, reason in reasons.items() if reason != NOT_HERE}
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    if any(reasons.get(name) == why for name, why in unavailable.items()):
        # An expert that could do it is away for now: that is worth a retry, unlike the rest.
        return Unavailable(f"no expert can answer now ({told})", "no_expert_available")
    if reasons and all(reason.startswith(CONTEXT) for reason in reasons.values()):
        return BadRequest(
            f"the request is longer than the maximum context length of every expert ({told})",
            "context_length_exceeded",
            "messages",
        )
    return BadRequest(f"no expert is left for this request ({told})", "no_eligible_expert", "routing")


def _named(
    ask: InferenceRequest,
    directory: Directory,
    unavailable: Mapping[str, str],
    allowed: Collection[str] | None,
) -> CallOrder:
    if allowed is not None and ask.model not in allowed:
        raise NotAllowed(f"this key may not use the model {ask.model!r}", "model_not_allowed", "model")
    if "vision" in ask.needs - directory.config.experts[ask.model].capabilities:
        # Its engine would fetch whatever URL stands there.
        raise BadRequest(
            f"the expert {ask.model!r} takes text only: its capabilities lack vision",
            "no_eligible_expert",
            "model",
        )
    fallback = ask.routing.fallback is True
    ranking: tuple[str, ...] = (ask.model,)
    if fallback:
        # The named expert is not held against the lists: it was asked for by name.
        reasons = directory.exclusions(ask, unavailable, allowed)
        ranking += tuple(
            name for name in directory.static_ranking() if name != ask.model and name not in reasons
        )
    if (why := directory.not_up(ask.model)) is not None:
        if len(ranking) == 1:
            told = f"the expert {ask.model} is not up yet ({why})"
            raise Unavailable(told, "expert_starting", "model", STARTING_RETRY_S)
        ranking = (*ranking[1:], ask.model)
    view = ExpertView(score=None, cost_usd=None, ttft_ms=None, eligible=True)
    decision = Decision(ranking, dict.fromkeys(ranking, view), policy_id="")
    return CallOrder(ranking, "named", fallback, decision, named=ask.model)


def _warm_first(
    ranking: tuple[str, ...], passed_over: Collection[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Experts with a running replica before those without, and the latter that stood before the first."""
    warm = tuple(name for name in ranking if name not in passed_over)
    if not warm:
        return ranking, ranking[:1]
    better = ranking[: ranking.index(warm[0])]
    return (*warm, *(name for name in ranking if name in passed_over)), better


def _static(
    ask: InferenceRequest,
    directory: Directory,
    reasons: Mapping[str, str],
    cause: StaticCause,
    why: str,
    passed_over: Collection[str],
) -> CallOrder:
    """The policy's static ranking, as far as its experts are eligible."""
    logger.warning("static ranking used: %s", why, extra={"cause": cause})
    eligible = tuple(name for name in directory.static_ranking() if name not in reasons)
    if not eligible:
        raise none_left(reasons, {})
    ranking, scale_up = _warm_first(eligible, passed_over)
    views = {
        name: ExpertView(None, None, None, eligible=name not in reasons, excluded_because=reasons.get(name))
        for name in directory.config.experts
    }
    decision = Decision(eligible, views, "" if directory.policy is None else directory.policy.policy_id)
    fallback = ask.routing.fallback is not False
    return CallOrder(ranking, "fallback_router", fallback, decision, scale_up, cause)


def _check_lists(ask: InferenceRequest, directory: Directory) -> None:
    for field_name, names in (("experts", ask.routing.experts or ()), ("exclude", ask.routing.exclude)):
        if strangers := [name for name in names if name not in directory.config.experts]:
            raise BadRequest(
                f"routing.{field_name} names {strangers[0][:128]!r}, which is no expert; "
                f"experts: {', '.join(directory.config.experts)}",
                "unknown_expert",
                f"routing.{field_name}",
            )
