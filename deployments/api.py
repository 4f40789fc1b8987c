"""The HTTP door: OpenAI's endpoints, and ours beside them.

A Starlette app over plain objects; knows nothing of Ray. Each request goes the same way: whose is
it, read, parse, limits, admission, choose, dispatch, relay, account. Every refusal wears the
OpenAI envelope.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import orjson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from deployments import headers, telemetry
from deployments.admission import Gate
from deployments.ask import KINDS, Ask, parse
from deployments.choosing import AsksRouter, Choice, choose
from deployments.clients import ExpertClient, expert_client
from deployments.config import ExpertTarget, IngressArgs, IngressConfig
from deployments.cors import Cors
from deployments.directory import Directory
from deployments.dispatch import Attempt, Deadline, Opened
from deployments.errors import ApiError, DeadlineExceeded, Unavailable
from deployments.fleet import Fleet
from deployments.health import ExpertHealth
from deployments.keys import Caller, KeyRing
from deployments.ledger_client import Hold, LedgerClient
from deployments.page.board import Board
from deployments.page.card import PolicyCard
from deployments.page.door import Door
from deployments.pages import Pages
from deployments.refusals import HANDLERS, JsonResponse
from deployments.relay import Relay, Relayed
from deployments.upload import read_body

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
        router: AsksRouter,
        *,
        client_for: Callable[[str, ExpertTarget], ExpertClient] = expert_client,
        gather_metrics: Callable[[], Awaitable[bytes]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.args = args
        self.directory = Directory(config)
        self.config_error: str | None = None
        self.keys: KeyRing | None = None
        self.ledger: LedgerClient | None = None
        """Put in by whoever can reach the common ledger; without one, limits are not counted."""
        self._router = router
        self._clock = clock
        self.fleet = Fleet(self.directory, client_for, _observe_attempt, clock)
        self.gate = _gate(config, clock)
        self._gather_metrics = gather_metrics
        self.apply(config)

    @property
    def health(self) -> dict[str, ExpertHealth]:
        """Each expert's breaker and usual wait."""
        return self.fleet.health

    def apply(self, config: IngressConfig) -> None:
        """Put a configuration in force; what is known of unchanged experts stays."""
        limits = config.limits
        self.directory.reconfigure(config)
        self.fleet.apply(config)
        self.gate.resize(
            limits.max_in_flight, max_queued=limits.max_queued, max_wait_s=limits.max_queue_wait_s
        )

    def app(self) -> ASGIApp:
        """The ASGI app; only these paths are served."""
        pages = Pages(
            self.directory,
            caller=self._caller,
            troubles=self._troubles,
            gather_metrics=self._gather_metrics,
        )
        card = PolicyCard(self.directory)
        door = Door(self.args.page, Board(self.directory, self._gather_metrics), card, self._caller)
        app = Starlette(
            routes=[
                *(Route(path, self.generate, methods=["POST"]) for path in KINDS),
                Route("/v1/route", self.route, methods=["POST"]),
                *pages.routes(),
                *door.routes(),
            ],
            exception_handlers=dict(HANDLERS),
        )
        # A trailing slash is another path, not a hidden redirect of a POST.
        app.router.redirect_slashes = False
        return Cors(app, lambda: self.directory.config.cors)

    async def generate(self, request: Request) -> Response:
        """Every endpoint that an expert answers."""
        id_ = headers.request_id(request)
        kind = KINDS[request.url.path]
        started = self._clock()
        with ExitStack() as undo:
            try:
                caller = self._caller(request)
                self.gate.refuse_early()
                ask = await self._read(request)
                deadline = self._deadline(request, ask, started)
                hold = await self._reserve(caller, ask)
                undo.callback(hold.settle, 0, 0.0)
                await self._enter(ask, deadline)
                undo.callback(self.gate.leave)
                with telemetry.stage_seconds.labels("route").time():
                    choice = await self._choose(ask, caller)
                for name in choice.wake:
                    self.fleet.wake(name)
                opened = await self.fleet.dispatcher.open(
                    ask,
                    choice,
                    headers.forwarded(request, id_),
                    deadline,
                    attempts_at_most=ATTEMPTS.get(headers.retries(request), 1),
                )
                undo.callback(opened.place.leave)
            except ApiError as error:
                telemetry.requests.labels(kind, str(error.status)).inc()
                if error.status in {429, 503}:
                    telemetry.refused.labels(error.code).inc()
                raise
            except (asyncio.CancelledError, ClientDisconnect):
                telemetry.requests.labels(kind, "disconnected").inc()
                raise
            ended = undo.pop_all()
        telemetry.stage_seconds.labels("first_byte").observe(self._clock() - started)

        def finished(told: Relayed) -> None:
            with ended:
                self._settle(hold, ask, opened, told)
                self._account(kind, choice, opened, told, self._clock() - started)

        return Relay(opened.stream, headers.told(choice, opened, id_), kind=kind, finished=finished)

    async def route(self, request: Request) -> Response:
        """What the same body would do, without doing it."""
        caller = self._caller(request)
        ask = await self._read(request, guess=True)
        choice = await self._choose(ask, caller)
        experts = {
            name: {
                "score": view.score if choice.reason == "routed" else None,
                "cost_usd": view.cost_usd,
                "ttft_ms": view.ttft_ms if view.ttft_ms is not None else self.health[name].ttft_ms,
                "eligible": view.eligible,
                "excluded_because": view.excluded_because,
            }
            for name in self.directory.config.experts
            if (view := choice.views.get(name)) is not None
        }
        body = {
            "expert": choice.ranking[0],
            "ranking": list(choice.ranking),
            "policy": choice.policy_id,
            "reason": choice.reason,
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

    async def _read(self, request: Request, *, guess: bool = False) -> Ask:
        limit = int(self.args.max_body_mib * 1024 * 1024)
        raw = await read_body(request, limit, self.args.upload_timeout_s)
        with telemetry.stage_seconds.labels("parse").time():
            path = _path_of(raw) if guess else request.url.path
            return parse(path, raw, max_messages=self.directory.config.limits.max_messages)

    async def _reserve(self, caller: Caller | None, ask: Ask) -> Hold:
        if caller is None or self.ledger is None:
            return Hold(None, None, 0.0)
        answer = ASSUMED_ANSWER_TOKENS if ask.max_tokens is None else ask.max_tokens
        policy = self.directory.policy
        prices = () if policy is None else policy.prices.values()
        usd = max((price.cost_usd(ask.prompt_tokens, answer) for price in prices), default=0.0)
        return await self.ledger.reserve(caller, ask.prompt_tokens + answer, usd)

    async def _enter(self, ask: Ask, deadline: Deadline) -> None:
        with telemetry.stage_seconds.labels("admit").time():
            telemetry.queued.inc()
            try:
                await self.gate.enter(ask.routing.priority, deadline.left_s())
            except Unavailable as error:
                if deadline.left_s() <= 0:
                    why = f"no place came free within the deadline of {deadline.seconds:g} s"
                    raise DeadlineExceeded(why) from error
                raise
            finally:
                telemetry.queued.dec()

    async def _choose(self, ask: Ask, caller: Caller | None) -> Choice:
        try:
            choice = await choose(
                ask,
                self.directory,
                self._router,
                unavailable=self.fleet.unavailable(),
                ttft_ms=self.fleet.ttft_ms(),
                deadline_s=self.args.router_deadline_ms / 1000,
                allowed=None if caller is None else caller.experts,
                passed_over=self.fleet.passed_over(),
                preset=None if caller is None else caller.preset,
            )
        except Unavailable as error:
            raise Unavailable(error.message, error.code, None, self.fleet.retry_after_s()) from error
        if choice.reason == "fallback_router":
            telemetry.static_rankings.labels("no_decision").inc()
        return choice

    def _deadline(self, request: Request, ask: Ask, started: float) -> Deadline:
        seconds = ask.routing.timeout_s or headers.read_timeout_s(request)
        limit_s = self.args.request_timeout_s
        return Deadline(min(seconds or limit_s, limit_s), self._clock, started)

    def _settle(self, hold: Hold, ask: Ask, opened: Opened, told: Relayed) -> None:
        """Correct what a key's limits reserved to what was used, as far as it is known."""
        prompt, completion = told.usage() or (ask.prompt_tokens, told.events if told.streamed else 0)
        policy = self.directory.policy
        price = None if policy is None else policy.prices.get(opened.expert)
        hold.settle(prompt + completion, 0.0 if price is None else price.cost_usd(prompt, completion))

    def _account(self, kind: str, choice: Choice, opened: Opened, told: Relayed, seconds: float) -> None:
        """The end of a request: metrics."""
        outcome = str(opened.stream.head.status) if told.outcome == "complete" else told.outcome
        telemetry.requests.labels(kind, outcome).inc()
        telemetry.decisions.labels(opened.expert, headers.reason(choice, opened)).inc()
        telemetry.stage_seconds.labels("whole").observe(seconds)
        view = choice.views.get(opened.expert)
        if view is not None and view.cost_usd is not None:
            telemetry.cost_usd.labels(opened.expert, "predicted").inc(view.cost_usd)
        usage = told.usage()
        prompt, completion = usage or (0, told.events if told.streamed else 0)
        telemetry.tokens.labels(opened.expert, "prompt").inc(prompt)
        telemetry.tokens.labels(opened.expert, "completion").inc(completion)
        prices = {} if self.directory.policy is None else self.directory.policy.prices
        if opened.expert in prices:
            observed = prices[opened.expert].cost_usd(prompt, completion)
            telemetry.cost_usd.labels(opened.expert, "observed").inc(observed)
            dearest = max(price.cost_usd(prompt, completion) for price in prices.values())
            telemetry.baseline_usd.labels("dearest").inc(dearest)


def _observe_attempt(attempt: Attempt) -> None:
    telemetry.attempts.labels(attempt.expert, attempt.outcome).inc()


def _gate(config: IngressConfig, clock: Callable[[], float]) -> Gate:
    limits = config.limits
    return Gate(
        limits.max_in_flight,
        max_queued=limits.max_queued,
        max_wait_s=limits.max_queue_wait_s,
        clock=clock,
    )


def _path_of(raw: bytes) -> str:
    """The endpoint that a body of `/v1/route` is meant for, by the field that holds its query."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, dict) and "messages" not in body:
        if "input" in body:
            return "/v1/responses"
        if "prompt" in body:
            return "/v1/completions"
    return "/v1/chat/completions"
