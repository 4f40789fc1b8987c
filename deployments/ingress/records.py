"""The decision record of a request: everything that was known of it at its end, as the log keeps it.

Pure: an ended request in, a record out. Knows neither metrics nor files.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from deployments.contracts.call_order import CallOrder
from deployments.contracts.requests import InferenceRequest
from deployments.contracts.sse import StreamObserver
from deployments.ingress.spending import spent_on
from deployments.upstream.attempts import Attempt, OpenedResponse
from router.core import Draw
from router.learning.record import AttemptRecord, DecisionRecord, ExplorationRecord, PlanRecord


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one response."""

    prompt: int
    completion: int
    reported: bool
    """Whether the expert reported them; else they are estimated."""


def usage_of(request: InferenceRequest, observer: StreamObserver) -> Usage:
    """Tokens of a response: as the expert reported them, else an estimate and the events counted."""
    if not request.endpoint.runs_model:
        return Usage(0, 0, reported=True)
    if (reported := observer.usage()) is not None:
        return Usage(*reported, reported=True)
    return Usage(request.prompt_tokens, observer.tokens_counted(), reported=False)


@dataclass(frozen=True, slots=True)
class Ended:
    """A request at its end."""

    request_id: str
    client_request_id: str | None
    arrived_at: float
    """Seconds since 1970."""
    kind: str
    request: InferenceRequest
    order: CallOrder
    opened: OpenedResponse | None
    """`None` where no expert responded."""
    attempts: Sequence[Attempt]
    outcome: str
    code: str | None
    seconds: float
    usage: Usage | None
    """Of the response; `None` where it has none."""
    cost_usd: float | None
    key: str | None
    """The id of the caller's key."""
    unit: str
    """The conversation, else the request."""


def decision_record(ended: Ended) -> DecisionRecord:
    """The record of a request that had a call order."""
    request, order, opened, usage = ended.request, ended.order, ended.opened, ended.usage
    expert = None if opened is None else opened.expert
    routed, draw = order.reason in {"routed", "explored"}, order.decision.draw
    views, arm = order.views.items(), order.decision.arm
    return DecisionRecord(
        request_id=ended.request_id,
        client_request_id=ended.client_request_id,
        time=datetime.fromtimestamp(ended.arrived_at, UTC).isoformat(timespec="milliseconds"),
        kind=ended.kind,
        model=request.model,
        stream=request.stream,
        policy=order.policy_id,
        expert=expert,
        reason=order.reason if expert is None else order.reason_for(expert),
        ranking=order.ranking,
        scores={name: view.score for name, view in views} if routed else None,
        costs_usd={name: view.cost_usd for name, view in views} if routed else None,
        excluded={name: view.excluded_because for name, view in views if view.excluded_because},
        unfamiliar=order.decision.unfamiliar,
        preferences=request.routing.model_dump(exclude_none=True, exclude={"experts", "exclude"}),
        plan=_plan_record(opened, order),
        attempts=tuple(_attempt_record(attempt, request) for attempt in ended.attempts),
        prompt_tokens=None if usage is None else usage.prompt,
        completion_tokens=None if usage is None else usage.completion,
        usage_reported=None if usage is None else usage.reported,
        cost_usd=ended.cost_usd,
        ttft_s=None if opened is None else round(opened.ttft_s, 6),
        latency_s=round(ended.seconds, 6),
        outcome=ended.outcome,
        code=ended.code,
        key=ended.key,
        propensities=None if draw is None else draw.propensities,
        action=None if draw is None else draw.action,
        exploration=None if draw is None else _exploration_record(draw),
        conversation=None if ended.unit in {"", ended.request_id} else ended.unit,
        sticky=bool(order.cached_tokens) if order.decision.preferences.reads_times else None,
        load={name: asdict(one) for name, one in order.load.items()} or None,
        arm=None if arm is None else arm.name,
        canary=None if arm is None else arm.canary,
        query=request.query,
    )


def _attempt_record(attempt: Attempt, request: InferenceRequest) -> AttemptRecord:
    """One call, with its tokens where its response was read and not returned."""
    record = AttemptRecord(attempt.expert, attempt.outcome, round(attempt.seconds, 6))
    spent = spent_on(attempt, request)
    if spent is None:
        return record
    return replace(record, prompt_tokens=spent.prompt, completion_tokens=spent.completion)


def _exploration_record(draw: Draw) -> ExplorationRecord:
    settings = draw.exploration
    return ExplorationRecord(settings.share, settings.quality_floor, settings.seed, draw.unit)


def _plan_record(opened: OpenedResponse | None, order: CallOrder) -> PlanRecord | None:
    """What became of the plan, for the record."""
    plan = None if opened is None else opened.plan
    if plan is None:
        return None
    view = order.decision.plans.get(plan.name)
    cost_usd = None if view is None else view.view.cost_usd
    return PlanRecord(plan.name, plan.accepted, plan.why, plan.p_right, plan.p_accept, plan.signals, cost_usd)
