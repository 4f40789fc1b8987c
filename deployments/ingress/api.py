"""The HTTP door: OpenAI's endpoints, and ours beside them.

A Starlette app over plain objects; knows nothing of Ray. Each request goes the same way: whose is
it, read, parse, limits, admission, choose, dispatch, relay, account. Every refusal wears the
OpenAI envelope.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, nullcontext

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from deployments.config import ExpertTarget, IngressArgs, IngressConfig
from deployments.contracts.call_order import CallOrder
from deployments.contracts.deadlines import Deadline
from deployments.contracts.endpoints import ENDPOINTS
from deployments.contracts.errors import ApiError, Unavailable
from deployments.contracts.messages import TraceContext
from deployments.contracts.protocols import Decider, ExpertClient
from deployments.contracts.requests import InferenceRequest, parse, parse_for_any_endpoint
from deployments.contracts.sse import StreamObserver
from deployments.dashboard.policy_card import PolicyCard
from deployments.dashboard.routes import DashboardRoutes
from deployments.dashboard.snapshot import MetricsSnapshots
from deployments.ingress import headers
from deployments.ingress.accounting import Account, Accounting
from deployments.ingress.body import read_body
from deployments.ingress.cors import Cors
from deployments.ingress.error_handlers import HANDLERS, JsonResponse
from deployments.ingress.feedback import Feedback, KnowsElsewhere, RecentAnswers
from deployments.ingress.gauges import observe
from deployments.ingress.health import Pages
from deployments.ingress.relay import Relay
from deployments.ingress.resolution import choose
from deployments.limits.admission import AdmissionQueue, acquire_within
from deployments.limits.keys import Caller, KeyRing
from deployments.limits.ledger_client import LedgerClient, Reservation
from deployments.observability import metrics
from deployments.upstream.attempts import Attempt, OpenedResponse
from deployments.upstream.dispatcher import Dispatcher
from deployments.upstream.registry import ExpertRegistry

ASSUMED_ANSWER_TOKENS = 512
"""What a key's limits reserve for a request that sets no bound on its answer; corrected when it ends."""
ATTEMPTS = {0: None, 1: 2}
"""Experts asked at most, by how often the client itself has tried; later ones ask one."""


class Api:
    """One ingress replica's state and handlers."""

    def __init__(
        self,
        args: IngressArgs,
        config: IngressConfig,
        router: Decider,
        *,
        client_for: Callable[[str, ExpertTarget], ExpertClient],
        gather_metrics: Callable[[], Awaitable[bytes]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.args = args
        self.registry = ExpertRegistry(config, client_for, clock=clock)
        self.config_error: str | None = None
        self.keys: KeyRing | None = None
        self.ledger: LedgerClient | None = None
        """Put in by whoever can reach the common ledger; without one, limits are not counted."""
        self.knows_elsewhere: KnowsElsewhere | None = None
        """Asks the other replicas whether they answered a request; put in by whoever can reach them."""
        self._router = router
        self._clock = clock
        self._dispatcher = Dispatcher(self.registry, clock=clock, observe=_observe_attempt)
        self.gate = _gate(config, clock)
        self.accounting = Accounting(self.registry, clock)
        self.memory = RecentAnswers()
        self.accounting.memory = self.memory
        self._gather_metrics = gather_metrics or self._own_metrics

    def apply(self, config: IngressConfig) -> None:
        """Put a configuration in force; what is known of unchanged experts stays."""
        limits = config.limits
        self.registry.reconfigure(config)
        self.gate.resize(
            limits.max_in_flight, max_queued=limits.max_queued, max_wait_s=limits.max_queue_wait_s
        )

    def app(self) -> ASGIApp:
        """The ASGI app; only these paths are served."""
        pages = Pages(
            self.registry,
            caller=self._caller,
            troubles=self._troubles,
            gather_metrics=self._gather_metrics,
        )
        card = PolicyCard(self.registry)
        door = DashboardRoutes(
            self.args.page, MetricsSnapshots(self.registry, self._gather_metrics), card, self._caller
        )
        feedback = Feedback(
            self.accounting,
            self.memory,
            caller=self._caller,
            elsewhere=lambda: self.knows_elsewhere,
            upload_timeout_s=self.args.upload_timeout_s,
        )
        app = Starlette(
            routes=[
                *(Route(path, self.generate, methods=["POST"]) for path in ENDPOINTS),
                Route("/v1/route", self.route, methods=["POST"]),
                Route("/v1/feedback", feedback.rate, methods=["POST"]),
                *pages.routes(),
                *door.routes(),
            ],
            exception_handlers=dict(HANDLERS),
        )
        # A trailing slash is another path, not a hidden redirect of a POST.
        app.router.redirect_slashes = False
        return Cors(app, lambda: self.registry.config.cors)

    async def generate(self, request: Request) -> Response:
        """Every endpoint that an expert answers."""
        endpoint = ENDPOINTS[request.url.path]
        account = self.accounting.open(
            headers.request_id(request), endpoint.kind, headers.trace_context(request)
        )
        with ExitStack() as undo:
            try:
                opened, hold, deadline = await self._open(request, account, undo)
            except ApiError as error:
                account.refused(error)
                raise
            except (asyncio.CancelledError, ClientDisconnect):
                account.left()
                raise
            except Exception:
                account.failed()
                raise
            ended = undo.pop_all()

        def finished(told: StreamObserver) -> None:
            with ended:
                usage = account.ended(told)
                usd = self.accounting.cost_usd(opened.expert, usage)
                hold.settle(usage.prompt + usage.completion, usd or 0.0)

        told = headers.told(account.chosen, opened, account.request_id)
        return Relay(opened.stream, told, endpoint=endpoint, left_s=deadline.left_s, finished=finished)

    async def _open(
        self, request: Request, account: Account, undo: ExitStack
    ) -> tuple[OpenedResponse, Reservation, Deadline]:
        """From a request to an expert's answer, begun; what is held on the way stands in `undo`."""
        account.caller = caller = self._caller(request)
        self.gate.reject_early()
        account.ask = ask = await self._read(request, account)
        whole = self._deadline(ask.routing.timeout_s, account.started)
        # What the client says in a header is the longest silence that it bears: it ends with the first byte.
        deadline = self._deadline(ask.routing.timeout_s or headers.read_timeout_s(request), account.started)
        hold = await self._reserve(caller, ask)
        undo.callback(hold.settle, 0, 0.0)
        with account.stage("admit"):
            await acquire_within(deadline, (self.gate,), ask.routing.priority)
        undo.callback(self.gate.release)
        with account.stage("route"):
            account.choice = choice = await self._choose(ask, caller, account.span.context)
        for name in choice.scale_up:
            self.registry.scale_up(name)
        began = self._clock()
        opened = await self._dispatcher.open(
            ask,
            choice,
            headers.forwarded(request, account.request_id, account.span.context),
            deadline,
            max_attempts=ATTEMPTS.get(headers.retries(request), 1),
        )
        undo.callback(opened.slot.release)
        account.answered(opened, began)
        return opened, hold, whole

    async def route(self, request: Request) -> Response:
        """What the same body would do, without doing it."""
        caller = self._caller(request)
        ask = await self._read(request, guess=True)
        choice = await self._choose(ask, caller, headers.trace_context(request))
        sentences = choice.sentences()
        experts = {
            name: {
                "score": view.score,
                "cost_usd": view.cost_usd,
                "ttft_ms": view.ttft_ms if view.ttft_ms is not None else expert.latency.ttft_ms,
                "eligible": view.eligible,
                "excluded_because": view.excluded_because,
                "utility": view.utility,
                "reason": sentences[name],
            }
            for name, expert in self.registry.experts.items()
            if (view := choice.views.get(name)) is not None
        }
        body = {
            "expert": choice.ranking[0],
            "ranking": list(choice.ranking),
            "policy": choice.policy_id,
            "reason": choice.reason_for(choice.ranking[0]),
            "experts": experts,
        }
        return JsonResponse(body, headers={"x-request-id": headers.request_id(request)})

    def _caller(self, request: Request) -> Caller | None:
        return None if self.keys is None else self.keys.authenticate(request.headers.raw)

    def _troubles(self) -> dict[str, str]:
        troubles = {} if self.config_error is None else {"ingress": self.config_error}
        if self.keys is not None and self.keys.error is not None:
            troubles["keys"] = self.keys.error
        return troubles

    async def _read(
        self, request: Request, account: Account | None = None, *, guess: bool = False
    ) -> InferenceRequest:
        limit = int(self.args.max_body_mib * 1024 * 1024)
        raw = await read_body(request, limit, self.args.upload_timeout_s)
        with nullcontext() if account is None else account.stage("parse"):
            max_messages = self.registry.config.limits.max_messages
            if guess:
                return parse_for_any_endpoint(raw, max_messages=max_messages)
            return parse(request.url.path, raw, max_messages=max_messages)

    async def _reserve(self, caller: Caller | None, ask: InferenceRequest) -> Reservation:
        if caller is None or self.ledger is None:
            return Reservation(None, None, 0.0)
        answer = ASSUMED_ANSWER_TOKENS if ask.max_tokens is None else ask.max_tokens
        policy = self.registry.policy
        prices = () if policy is None else policy.prices.values()
        usd = max((price.cost_usd(ask.prompt_tokens, answer) for price in prices), default=0.0)
        return await self.ledger.reserve(caller, ask.prompt_tokens + answer, usd)

    async def _choose(self, ask: InferenceRequest, caller: Caller | None, trace: TraceContext) -> CallOrder:
        try:
            choice = await choose(
                ask,
                self.registry,
                self._router,
                deadline_s=self.args.router_deadline_ms / 1000,
                allowed=None if caller is None else caller.experts,
                preset=None if caller is None else caller.preset,
                trace=trace,
            )
        except Unavailable as error:
            wait_s = error.retry_after_s or self.registry.retry_after_s()
            raise Unavailable(error.message, error.code, error.param, wait_s) from error
        if choice.cause is not None:
            metrics.static_rankings.labels(choice.cause).inc()
        return choice

    def _deadline(self, seconds: float | None, started: float) -> Deadline:
        limit_s = self.args.request_timeout_s
        return Deadline(min(seconds or limit_s, limit_s), self._clock, started)

    def exposition(self) -> bytes:
        """This replica's metrics, its gauges set to what is now."""
        observe(self.registry, self.gate, self.config_error, self.ledger)
        return metrics.exposition()

    async def _own_metrics(self) -> bytes:
        return self.exposition()


def _observe_attempt(attempt: Attempt) -> None:
    metrics.attempts.labels(attempt.expert, attempt.outcome).inc()


def _gate(config: IngressConfig, clock: Callable[[], float]) -> AdmissionQueue:
    limits = config.limits
    return AdmissionQueue(
        limits.max_in_flight,
        max_queued=limits.max_queued,
        max_wait_s=limits.max_queue_wait_s,
        clock=clock,
    )
