"""Per-request accounting: metrics, cost against baselines, the span; `records` has the decision record.

An `Account` is opened when a request arrives and closed once, however it ends. Reads no request, knows no
Ray, and changes nothing of what it observes.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from starlette.requests import ClientDisconnect

from deployments.canary.arm_reports import ArmSink, NoArms
from deployments.contracts.call_order import CallOrder
from deployments.contracts.errors import ApiError, ErrorCode
from deployments.contracts.messages import NO_TRACE, TraceContext
from deployments.contracts.requests import InferenceRequest
from deployments.contracts.sse import StreamObserver
from deployments.ingress import charges
from deployments.ingress.charges import Charge
from deployments.ingress.records import Ended, Usage, decision_record, usage_of
from deployments.ingress.spending import Spent, spent_aside
from deployments.limits.keys import Caller, key_id
from deployments.observability import metrics
from deployments.observability.recent_answers import AnswerOrigin, RecentAnswers
from deployments.observability.record_sink import RecordSink
from deployments.observability.tracing import Span, Tracer
from deployments.upstream.attempts import Attempt, OpenedResponse
from deployments.upstream.registry import ExpertRegistry
from router.experts import Price

logger = logging.getLogger("ray.serve")

ANSWERED = "200"
LOADED = frozenset({429, 503})
"""Statuses of a rejection for load or limits."""


class Accounting:
    """The accounts of one ingress replica.

    Args:
        registry: has the policy, and with it the prices.
        records: gets a record of each request that had a call order.
        recent: gets the origin of each response.
        tracer: begins the span of each request.
        arms: gets what is measured of each request while a canary runs.
        clock: monotonic seconds.
        now: seconds since 1970.
    """

    def __init__(
        self,
        registry: ExpertRegistry,
        records: RecordSink,
        recent: RecentAnswers,
        tracer: Tracer,
        arms: ArmSink | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self.records = records
        self.recent = recent
        self.arms = NoArms() if arms is None else arms
        self._tracer = tracer
        self.clock, self.now = clock, now

    def open(
        self,
        request_id: str,
        kind: str,
        trace: TraceContext = NO_TRACE,
        client_request_id: str | None = None,
    ) -> "Account":
        """Open the account of a request that arrived as part of a trace."""
        span = self._tracer.begin(f"ingress {kind}", trace)
        span.tell(to_router__request_id=request_id)
        return Account(self, request_id, kind, span, client_request_id)

    def cost_usd(self, expert: str, usage: Usage) -> float | None:
        """Cost of a response; `None` where the expert has no price."""
        price = self.prices().get(expert)
        return None if price is None else price.cost_usd(usage.prompt, usage.completion)

    def prices(self) -> dict[str, Price]:
        """Prices by expert, as the policy has them."""
        policy = self._registry.policy
        return {} if policy is None else dict(policy.prices)

    def best_single(self) -> str | None:
        """The expert that was best on the policy's training data."""
        policy = self._registry.policy
        return None if policy is None else policy.best_single or policy.static_ranking[0]


class Account:
    """One request, from its arrival to its end; the pipeline fills in what becomes known."""

    def __init__(
        self,
        accounting: Accounting,
        request_id: str,
        kind: str,
        span: Span,
        client_request_id: str | None = None,
    ) -> None:
        self._accounting = accounting
        self.request_id = request_id
        self.client_request_id = client_request_id
        """The client's own id, where it sent one: for people who search the log."""
        self.kind = kind
        self.span = span
        self.started = accounting.clock()
        """By the clock of deadlines."""
        self._arrived_at = accounting.now()
        self._closed = False
        self._opened: OpenedResponse | None = None
        self._dispatched = 0.0
        """When the dispatcher was called, by the clock of deadlines."""
        self.caller: Caller | None = None
        self.request: InferenceRequest | None = None
        self.order: CallOrder | None = None
        self.unit = ""
        """The conversation, else the request, that draws and canaries are decided for."""
        self.failed_attempts: list[Attempt] = []
        """Filled by the dispatcher."""

    @property
    def call_order(self) -> CallOrder:
        """The experts to call.

        Raises:
            RuntimeError: the model is not resolved yet.
        """
        if self.order is None:
            raise RuntimeError("the model is not resolved yet")
        return self.order

    @property
    def _attempts(self) -> Sequence[Attempt]:
        return self.failed_attempts if self._opened is None else self._opened.attempts

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of the request."""
        began = self._accounting.clock()
        try:
            yield
        finally:
            metrics.stage_seconds.labels(name).observe(self._accounting.clock() - began)

    def responded(self, opened: OpenedResponse, dispatched: float) -> None:
        """Note that an expert responded: the first byte is about to leave.

        Args:
            opened: the response.
            dispatched: when the dispatcher was called, by the clock of deadlines.
        """
        self._opened, self._dispatched = opened, dispatched
        now = self._accounting.clock()
        if self.request is not None and self.request.stream:
            self._compare_time("first_byte", now)
        stages = metrics.stage_seconds
        stages.labels("connect").observe(max(0.0, now - dispatched - opened.ttft_s))
        stages.labels("expert").observe(opened.ttft_s)
        stages.labels("first_byte").observe(now - self.started)
        form = "stream" if self.request is not None and self.request.stream else "whole"
        metrics.expert_seconds.labels(opened.expert, form).observe(opened.ttft_s)
        if (plan := opened.plan) is not None:
            metrics.plans.labels(plan.name, plan.why).inc()
            if plan.accepted is not None and plan.p_accept is not None:
                metrics.plans_predicted.labels(plan.name).inc(plan.p_accept)

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close the account with the outcome of an error that leaves the block, and let it pass."""
        try:
            yield
        except ApiError as error:
            self.rejected(error)
            raise
        except (asyncio.CancelledError, ClientDisconnect):
            self.disconnected()
            raise
        except Exception:
            self.failed()
            raise

    def rejected(self, error: ApiError) -> None:
        """Close with an error, before any byte."""
        if error.status in LOADED:
            metrics.refused.labels(error.code).inc()
        self._close(str(error.status), code=error.code)

    def completed(self, status: int) -> None:
        """Close after a response that no expert gave."""
        self._close(str(status))

    def disconnected(self) -> None:
        """Close because the client disconnected before any byte."""
        self._close("disconnected")

    def failed(self) -> None:
        """Close with an internal error."""
        self._close("500", code=ErrorCode.INTERNAL_ERROR)

    def ended(self, observer: StreamObserver) -> Usage:
        """Close after a response, complete or not; returns its tokens."""
        if self._opened is None or self.request is None or self.order is None:
            raise RuntimeError("a response ended that never began")
        opened = self._opened
        usage = usage_of(self.request, observer)
        metrics.decisions.labels(opened.expert, self.order.reason_for(opened.expert)).inc()
        metrics.tokens.labels(opened.expert, "prompt").inc(usage.prompt)
        metrics.tokens.labels(opened.expert, "completion").inc(usage.completion)
        if not usage.reported:
            metrics.usage_estimated.labels(opened.expert).inc()
        self._count_cost(opened.expert, self.order, usage)
        if observer.outcome == "complete":
            self._compare_time("end", self._accounting.clock())
        plan = opened.plan if opened.plan is not None and opened.plan.accepted else None
        name, p_right = (None, None) if plan is None else (plan.name, plan.p_right)
        view, arm = self.order.predicted(opened.expert, name), self.order.decision.arm
        score = None if view is None else view.score
        origin = AnswerOrigin(opened.expert, key_id(self.caller), name, p_right, arm, score)
        self._accounting.recent.remember(self.request_id, origin)
        self._close(
            str(opened.stream.head.status) if observer.outcome == "complete" else observer.outcome, usage
        )
        return usage

    def charge(self, observer: StreamObserver | None = None) -> Charge:
        """What the request's key is charged.

        Args:
            observer: what was seen of the response; `None` where none was relayed.
        """
        if self.request is None:
            return Charge()
        prices = self._accounting.prices()
        charge = charges.of_attempts(self.request, self.failed_attempts, prices)
        if observer is None or self._opened is None:
            return charge
        plan, expert = self._opened.plan, self._opened.expert
        if plan is not None and plan.unreturned_tokens:
            charge += charges.of_tokens(expert, 0, plan.unreturned_tokens, prices)
        return charge + charges.of_response(self.request, expert, observer, prices)

    def _compare_time(self, part: Literal["first_byte", "end"], now: float) -> None:
        """Compare a time with the decision's, where the expert that it put first responded alone."""
        order, opened = self.order, self._opened
        if order is None or opened is None or order.plan is not None or opened.expert != order.ranking[0]:
            return
        view = order.views.get(opened.expert)
        if view is None or view.latency_ms is None or view.ttft_ms is None:
            return
        expected_ms = view.ttft_ms if part == "first_byte" else view.latency_ms
        if expected_ms > 0:
            ratio = 1000 * (now - self._dispatched) / expected_ms
            metrics.expected_time_ratio.labels(opened.expert, part).observe(ratio)

    def _count_cost(self, expert: str, order: CallOrder, usage: Usage) -> None:
        view = order.predicted(expert, None if self._opened is None else self._opened.plan_name)
        predicted = None if view is None else view.cost_usd
        if predicted is not None:
            metrics.cost_usd.labels(expert, "predicted").inc(predicted)
        observed = self._accounting.cost_usd(expert, usage)
        if observed is None:
            return
        metrics.cost_usd.labels(expert, "observed").inc(observed)
        prices = self._accounting.prices()
        whole = observed + sum(spent.usd(prices) or 0.0 for spent in self._spent_aside())
        if predicted:
            metrics.cost_ratio.labels(expert).observe(whole / predicted)
        most_expensive = max(price.cost_usd(usage.prompt, usage.completion) for price in prices.values())
        metrics.baseline_usd.labels("most_expensive").inc(most_expensive)
        if (best := prices.get(self._accounting.best_single() or "")) is not None:
            metrics.baseline_usd.labels("best_single").inc(best.cost_usd(usage.prompt, usage.completion))
        key = key_id(self.caller)
        metrics.key_cost_usd.labels(key).inc(observed)
        metrics.key_saved_usd.labels(key).inc(max(0.0, most_expensive - whole))

    def _spent_aside(self) -> list[Spent]:
        """What the request spent beside the response that it returned."""
        if self.request is None:
            return []
        plan = None if self._opened is None else self._opened.plan
        returned = None if self._opened is None else self._opened.expert
        unreturned = 0 if plan is None else plan.unreturned_tokens
        return spent_aside(self._attempts, self.request, returned, unreturned)

    def _count_spent_aside(self) -> None:
        prices = self._accounting.prices()
        for spent in self._spent_aside():
            metrics.tokens.labels(spent.expert, "prompt").inc(spent.prompt)
            metrics.tokens.labels(spent.expert, "completion").inc(spent.completion)
            if usd := spent.usd(prices):
                metrics.cost_usd.labels(spent.expert, "observed").inc(usd)
                metrics.key_cost_usd.labels(key_id(self.caller)).inc(usd)

    def _close(self, outcome: str, usage: Usage | None = None, code: str | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        self._count_spent_aside()
        seconds = self._accounting.clock() - self.started
        metrics.requests.labels(self.kind, outcome).inc()
        metrics.stage_seconds.labels("whole").observe(seconds)
        self._report(outcome, code, seconds)
        self._measure_arm(outcome, usage, seconds)
        if self._accounting.records.active and self.order is not None and self.request is not None:
            ended = Ended(
                request_id=self.request_id,
                client_request_id=self.client_request_id,
                arrived_at=self._arrived_at,
                kind=self.kind,
                request=self.request,
                order=self.order,
                opened=self._opened,
                attempts=self._attempts,
                outcome=outcome,
                code=code,
                seconds=seconds,
                usage=usage,
                cost_usd=self._cost_usd(usage),
                key=None if self.caller is None else self.caller.id,
                unit=self.unit,
            )
            self._accounting.records.write(decision_record(ended))

    def _measure_arm(self, outcome: str, usage: Usage | None, seconds: float) -> None:
        """Note success, cost and time for the arm of a canary; faults of clients count for neither."""
        arm = None if self.order is None else self.order.decision.arm
        failed = outcome == "broken" or outcome.startswith("5")
        if arm is None or not (failed or outcome == ANSWERED):
            return
        measured = self._accounting.arms.measured
        metrics.arm_requests.labels(arm.name, "failure" if failed else "success").inc()
        measured(arm, "success", float(not failed))
        measured(arm, "latency_s", seconds)
        if (cost_usd := self._cost_usd(usage)) is not None:
            measured(arm, "cost_usd", cost_usd)

    def _cost_usd(self, usage: Usage | None) -> float | None:
        """Cost of the response; `None` where there was none, or no price."""
        if usage is None or self._opened is None:
            return None
        return self._accounting.cost_usd(self._opened.expert, usage)

    def _report(self, outcome: str, code: str | None, seconds: float) -> None:
        """One line in the log, and the end of the span."""
        expert = None if self._opened is None else self._opened.expert
        why: str | None = None if self.order is None else self.order.reason
        if self.order is not None and self._opened is not None:
            why = self.order.reason_for(self._opened.expert)
        fields = {
            "request_id": self.request_id,
            "client_request_id": self.client_request_id,
            "kind": self.kind,
            "outcome": outcome,
            "code": code,
            "expert": expert,
            "reason": why,
            "attempts": len(self._attempts),
            "key": None if self.caller is None else self.caller.id,
            "latency_s": round(seconds, 6),
        }
        bad = outcome.startswith("5") or outcome == "broken"
        logger.log(logging.WARNING if bad else logging.INFO, "request ended", extra=fields)
        self.span.tell(**{f"to_router__{name}": value for name, value in fields.items() if value is not None})
        if self._opened is not None:
            self.span.tell(to_router__ttft_s=self._opened.ttft_s)
        self.span.end(code or outcome if bad else None)
