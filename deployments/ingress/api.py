"""ASGI app of the ingress: OpenAI-compatible endpoints and TO-Router's own; the route table and its parts.

Plain objects, complete when constructed, and no Ray.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from deployments.canary.arm_reports import ArmSink
from deployments.config import ExpertTarget, IngressArgs, IngressConfig
from deployments.contracts.endpoints import ENDPOINTS
from deployments.contracts.protocols import Decider, ExpertClient
from deployments.dashboard.policy_card import PolicyCard
from deployments.dashboard.routes import DashboardRoutes
from deployments.dashboard.snapshot import MetricsSnapshots
from deployments.ingress import health, models
from deployments.ingress.access import Access
from deployments.ingress.accounting import Accounting
from deployments.ingress.body_budget import BodyBudget
from deployments.ingress.browsers import BrowserGuard
from deployments.ingress.cors import Cors
from deployments.ingress.error_handlers import HANDLERS
from deployments.ingress.feedback import AskOthers, Feedback
from deployments.ingress.gauges import set_gauges
from deployments.ingress.generation import Generation
from deployments.ingress.limited import LimitedEndpoints
from deployments.ingress.request_ids import RequestIds
from deployments.limits.admission import AdmissionQueue
from deployments.observability import metrics
from deployments.observability.recent_answers import RecentAnswers
from deployments.observability.record_sink import NoRecords, RecordSink
from deployments.observability.tracing import NoTracer, Tracer
from deployments.upstream.attempts import Attempt
from deployments.upstream.dispatcher import Dispatcher
from deployments.upstream.plan_executor import PlanExecutor
from deployments.upstream.registry import ExpertRegistry


class Api:
    """One ingress replica: its state, and the ASGI app over it.

    Args:
        args: shape of the deployment.
        config: the first configuration.
        router: decides for `auto` and presets.
        client_for: makes the client of an expert from its name and target.
        access: keys and their limits, which may change while requests run.
        bodies: the bytes of all bodies in flight in this process; by default as `args` has them.
        records: gets each decision and rating.
        recent: responses that ratings are accepted for.
        ask_others: finds responses of other replicas; `None` where there are none.
        gather_metrics: returns the metrics of the whole application; by default this replica's.
        gather_for_board: the same without the engines; by default this replica's.
        tracer: begins the span of each request.
        arms: gets what is measured while a canary runs.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        args: IngressArgs,
        config: IngressConfig,
        router: Decider,
        *,
        client_for: Callable[[str, ExpertTarget], ExpertClient],
        access: Access | None = None,
        bodies: BodyBudget | None = None,
        records: RecordSink | None = None,
        recent: RecentAnswers | None = None,
        ask_others: AskOthers | None = None,
        gather_metrics: Callable[[], Awaitable[bytes]] | None = None,
        gather_for_board: Callable[[], Awaitable[bytes]] | None = None,
        tracer: Tracer | None = None,
        arms: ArmSink | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = config.limits
        self._config_error: str | None = None
        self._access = Access() if access is None else access
        self.registry = ExpertRegistry(config, client_for, clock=clock)
        self.queue = AdmissionQueue(
            limits.max_in_flight,
            max_queued=limits.max_queued,
            max_wait_s=limits.max_queue_wait_s,
            clock=clock,
        )
        records = NoRecords() if records is None else records
        recent = RecentAnswers() if recent is None else recent
        accounting = Accounting(
            self.registry, records, recent, NoTracer() if tracer is None else tracer, arms, clock
        )
        if bodies is None:
            bodies = BodyBudget(args.max_bodies_bytes, args.max_body_bytes, args.upload_timeout_s)
        self.bodies = bodies
        limited = LimitedEndpoints(
            args, queue=self.queue, accounting=accounting, access=self._access, bodies=self.bodies
        )
        dispatcher = Dispatcher(self.registry, clock=clock, observe=_count_attempt)
        generation = Generation(
            args,
            self.registry,
            router,
            queue=self.queue,
            executor=PlanExecutor(self.registry, dispatcher, clock=clock),
            accounting=accounting,
            access=self._access,
            limited=limited,
            bodies=self.bodies,
            clock=clock,
        )
        feedback = Feedback(limited, records, recent, ask_others, arms=arms)
        gather = gather_metrics or self._own_metrics
        caller = self._access.caller
        self.board = MetricsSnapshots(self.registry, gather_for_board or self._own_metrics)
        dashboard = DashboardRoutes(args.page, self.board, PolicyCard(self.registry), caller)
        starlette = Starlette(
            routes=[
                *(Route(path, partial(generation.generate, path), methods=["POST"]) for path in ENDPOINTS),
                Route("/v1/route", generation.route, methods=["POST"]),
                Route("/v1/feedback", feedback.rate, methods=["POST"]),
                *models.routes(self.registry, caller),
                *health.routes(self.registry, caller, self._problems, gather),
                *dashboard.routes(),
            ],
            exception_handlers=dict(HANDLERS),
        )
        # A trailing slash is another path, not a hidden redirect of a POST.
        starlette.router.redirect_slashes = False
        guarded = BrowserGuard(starlette, lambda: self._access.requires_key, lambda: self.registry.config)
        self.app: ASGIApp = RequestIds(Cors(guarded, lambda: self.registry.config.cors))
        """Only these paths are served."""

    def apply(self, config: IngressConfig) -> None:
        """Put a configuration into effect; what is known of unchanged experts stays."""
        limits = config.limits
        self._config_error = None
        self.registry.reconfigure(config)
        self.queue.resize(
            limits.max_in_flight, max_queued=limits.max_queued, max_wait_s=limits.max_queue_wait_s
        )

    def reject(self, why: str) -> None:
        """Note a rejected configuration: the last one stays in effect, and `/ready` has the reason."""
        self._config_error = why

    def exposition(self) -> bytes:
        """This replica's metrics, with its gauges set to the current values."""
        set_gauges(
            self.registry,
            self.queue,
            config_rejected=self._config_error is not None,
            ledger_is_away=self._access.ledger_is_away,
        )
        return metrics.exposition()

    def _problems(self) -> dict[str, str]:
        """Parts of the ingress itself that are not ready, with the reasons."""
        problems = {"ingress": self._config_error, "keys": self._access.error}
        return {part: why for part, why in problems.items() if why is not None}

    async def _own_metrics(self) -> bytes:
        return self.exposition()


def _count_attempt(attempt: Attempt) -> None:
    metrics.attempts.labels(attempt.expert, attempt.outcome).inc()
