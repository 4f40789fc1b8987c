"""What one request comes to: its metrics, its cost against what others would have cost, its record.

An `Account` is opened when a request arrives and closed once, however it ends. Knows nothing of
HTTP or Ray; what it is told it does not change.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from deployments.contracts.call_order import CallOrder
from deployments.contracts.errors import ApiError
from deployments.contracts.messages import NO_TRACE, TraceContext
from deployments.contracts.requests import InferenceRequest
from deployments.contracts.sse import StreamObserver
from deployments.limits.keys import NO_KEY, Caller
from deployments.observability import metrics
from deployments.observability.tracing import NoTracer, Span, Tracer
from deployments.upstream.attempts import Attempt, OpenedResponse
from deployments.upstream.registry import ExpertRegistry
from router.experts import Price

logger = logging.getLogger("ray.serve")

LOADED = frozenset({429, 503})
"""Statuses of a refusal for load or limits."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer."""

    prompt: int
    completion: int
    reported: bool
    """By the expert; else estimated."""


class KeepsRecords(Protocol):
    """Where a finished request's record goes; never blocks."""

    def write(self, record: dict[str, Any]) -> None: ...


class RemembersRequests(Protocol):
    """Who will know a request again when feedback comes."""

    def remember(self, request_id: str, key: str, expert: str) -> None: ...


def usage_of(ask: InferenceRequest, told: StreamObserver) -> Usage:
    """What an answer used: as the expert reported it, else by our estimate and the events counted."""
    if (reported := told.usage()) is not None:
        return Usage(*reported, reported=True)
    return Usage(ask.prompt_tokens, told.tokens_counted(), reported=False)


class Accounting:
    """One ingress replica's accounts."""

    def __init__(
        self,
        registry: ExpertRegistry,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._clock, self._now = clock, now
        self.log: KeepsRecords | None = None
        self.memory: RemembersRequests | None = None
        self.tracer: Tracer = NoTracer()

    def open(self, request_id: str, kind: str, trace: TraceContext = NO_TRACE) -> "Account":
        """A request arrived, as part of a trace."""
        span = self.tracer.begin(f"ingress {kind}", trace)
        span.tell(to_router__request_id=request_id)
        return Account(self, request_id, kind, span)

    def now(self) -> float:
        return self._now()

    def clock(self) -> float:
        return self._clock()

    def cost_usd(self, expert: str, usage: Usage) -> float | None:
        """What an answer cost; `None` where the expert has no price."""
        price = self.prices().get(expert)
        return None if price is None else price.cost_usd(usage.prompt, usage.completion)

    def prices(self) -> dict[str, Price]:
        policy = self._registry.policy
        return {} if policy is None else dict(policy.prices)

    def best_single(self) -> str | None:
        """The expert that was best on the policy's training data."""
        policy = self._registry.policy
        return None if policy is None else policy.best_single or policy.static_ranking[0]


class Account:
    """One request, from its arrival to its end. Whoever serves it fills in what becomes known."""

    def __init__(self, accounting: Accounting, request_id: str, kind: str, span: Span) -> None:
        self._accounting = accounting
        self.request_id = request_id
        self.kind = kind
        self.span = span
        self.started = accounting.clock()
        """By the clock of deadlines."""
        self._arrived_at = accounting.now()
        self._closed = False
        self._opened: OpenedResponse | None = None
        self.caller: Caller | None = None
        self.ask: InferenceRequest | None = None
        self.choice: CallOrder | None = None

    @property
    def chosen(self) -> CallOrder:
        """Whom to ask; raises `RuntimeError` before that is known."""
        if self.choice is None:
            raise RuntimeError("nobody has been chosen yet")
        return self.choice

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of the request."""
        began = self._accounting.clock()
        try:
            yield
        finally:
            metrics.stage_seconds.labels(name).observe(self._accounting.clock() - began)

    def answered(self, opened: OpenedResponse, dispatch_began: float) -> None:
        """An expert's answer began; its first byte is about to leave."""
        self._opened = opened
        now = self._accounting.clock()
        stages = metrics.stage_seconds
        stages.labels("connect").observe(max(0.0, now - dispatch_began - opened.ttft_s))
        stages.labels("expert").observe(opened.ttft_s)
        stages.labels("first_byte").observe(now - self.started)
        answer = "stream" if self.ask is not None and self.ask.stream else "whole"
        metrics.expert_seconds.labels(opened.expert, answer).observe(opened.ttft_s)

    def refused(self, error: ApiError) -> None:
        """It ended in a refusal of ours, before any byte."""
        if error.status in LOADED:
            metrics.refused.labels(error.code).inc()
        self._close(str(error.status), code=error.code)

    def left(self) -> None:
        """The client went before any byte."""
        self._close("disconnected")

    def failed(self) -> None:
        """A fault of ours ended it."""
        self._close("500", code="internal_error")

    def ended(self, told: StreamObserver) -> Usage:
        """The answer is over, whole or not; returns what it used."""
        if self._opened is None or self.ask is None or self.choice is None:
            raise RuntimeError("an answer ended that never began")
        opened = self._opened
        usage = usage_of(self.ask, told)
        metrics.decisions.labels(opened.expert, self.choice.reason_for(opened.expert)).inc()
        metrics.tokens.labels(opened.expert, "prompt").inc(usage.prompt)
        metrics.tokens.labels(opened.expert, "completion").inc(usage.completion)
        if not usage.reported:
            metrics.usage_estimated.labels(opened.expert).inc()
        self._count_money(opened.expert, self.choice, usage)
        if self._accounting.memory is not None:
            self._accounting.memory.remember(self.request_id, key_of(self.caller), opened.expert)
        self._close(str(opened.stream.head.status) if told.outcome == "complete" else told.outcome, usage)
        return usage

    def _count_money(self, expert: str, choice: CallOrder, usage: Usage) -> None:
        view = choice.views.get(expert)
        predicted = None if view is None else view.cost_usd
        if predicted is not None:
            metrics.cost_usd.labels(expert, "predicted").inc(predicted)
        observed = self._accounting.cost_usd(expert, usage)
        if observed is None:
            return
        if predicted:
            metrics.cost_ratio.labels(expert).observe(observed / predicted)
        metrics.cost_usd.labels(expert, "observed").inc(observed)
        prices = self._accounting.prices()
        dearest = max(price.cost_usd(usage.prompt, usage.completion) for price in prices.values())
        metrics.baseline_usd.labels("most_expensive").inc(dearest)
        if (best := prices.get(self._accounting.best_single() or "")) is not None:
            metrics.baseline_usd.labels("best_single").inc(best.cost_usd(usage.prompt, usage.completion))
        key = key_of(self.caller)
        metrics.key_cost_usd.labels(key).inc(observed)
        metrics.key_saved_usd.labels(key).inc(max(0.0, dearest - observed))

    def _close(self, outcome: str, usage: Usage | None = None, code: str | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        seconds = self._accounting.clock() - self.started
        metrics.requests.labels(self.kind, outcome).inc()
        metrics.stage_seconds.labels("whole").observe(seconds)
        self._tell(outcome, code, seconds)
        if self._accounting.log is not None and self.choice is not None:
            self._accounting.log.write(self._record(outcome, code, seconds, usage))

    def _tell(self, outcome: str, code: str | None, seconds: float) -> None:
        """One line in the log, and the end of the span."""
        expert = None if self._opened is None else self._opened.expert
        why: str | None = None if self.choice is None else self.choice.reason
        if self.choice is not None and self._opened is not None:
            why = self.choice.reason_for(self._opened.expert)
        fields = {
            "request_id": self.request_id,
            "kind": self.kind,
            "outcome": outcome,
            "code": code,
            "expert": expert,
            "reason": why,
            "attempts": 0 if self._opened is None else len(self._opened.attempts),
            "key": None if self.caller is None else self.caller.id,
            "latency_s": round(seconds, 6),
        }
        bad = outcome.startswith("5") or outcome == "broken"
        logger.log(logging.WARNING if bad else logging.INFO, "request ended", extra=fields)
        self.span.tell(**{f"to_router__{name}": value for name, value in fields.items() if value is not None})
        if self._opened is not None:
            self.span.tell(to_router__ttft_s=self._opened.ttft_s)
        self.span.end(code or outcome if bad else None)

    def _record(self, outcome: str, code: str | None, seconds: float, usage: Usage | None) -> dict[str, Any]:
        """The decision record; the query stands in it for the log to keep or to drop."""
        choice, opened, ask = self.choice, self._opened, self.ask
        if choice is None or ask is None:
            raise RuntimeError("there is no record before the choice")
        expert = None if opened is None else opened.expert
        attempts: tuple[Attempt, ...] = () if opened is None else opened.attempts
        routed = choice.reason == "routed"
        return {
            "type": "decision",
            "request_id": self.request_id,
            "time": datetime.fromtimestamp(self._arrived_at, UTC).isoformat(timespec="milliseconds"),
            "kind": self.kind,
            "model": ask.model,
            "stream": ask.stream,
            "policy": choice.policy_id,
            "expert": expert,
            "reason": choice.reason if opened is None else choice.reason_for(opened.expert),
            "ranking": list(choice.ranking),
            "scores": {name: view.score for name, view in choice.views.items()} if routed else None,
            "costs_usd": {name: view.cost_usd for name, view in choice.views.items()} if routed else None,
            "excluded": {
                name: view.excluded_because for name, view in choice.views.items() if view.excluded_because
            },
            "unfamiliar": choice.decision.unfamiliar,
            "preferences": _preferences(ask),
            "attempts": [
                {"expert": a.expert, "outcome": a.outcome, "seconds": round(a.seconds, 6)} for a in attempts
            ],
            "prompt_tokens": None if usage is None else usage.prompt,
            "completion_tokens": None if usage is None else usage.completion,
            "usage_reported": None if usage is None else usage.reported,
            "cost_usd": None if usage is None or expert is None else self._accounting.cost_usd(expert, usage),
            "ttft_s": None if opened is None else round(opened.ttft_s, 6),
            "latency_s": round(seconds, 6),
            "outcome": outcome,
            "code": code,
            "key": None if self.caller is None else self.caller.id,
            "query": ask.query,
        }


def key_of(caller: Caller | None) -> str:
    """The key's id, for labels and memory."""
    return NO_KEY if caller is None else caller.id


def _preferences(ask: InferenceRequest) -> dict[str, Any]:
    """What the request itself preferred; the preset is its `model`."""
    return ask.routing.model_dump(exclude_none=True, exclude={"experts", "exclude"})
