"""The HTTP door: OpenAI's endpoints, and ours beside them.

A Starlette app over plain objects; knows nothing of Ray. Each request goes the same way: read,
parse, choose, dispatch, relay, account. Every refusal wears the OpenAI envelope.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from deployments import telemetry
from deployments.asgi import Headers
from deployments.ask import KINDS, Ask, parse
from deployments.choosing import AsksRouter, Choice, choose
from deployments.clients import ExpertClient, expert_client
from deployments.config import AUTO, ExpertTarget, IngressArgs, IngressConfig
from deployments.directory import Directory
from deployments.dispatch import Attempt, Deadline, Dispatcher, Opened
from deployments.errors import ApiError, MethodNotAllowed, NotFound, SlowUpload, TooLarge
from deployments.health import ExpertHealth
from deployments.relay import Refused, Relay, Relayed

logger = logging.getLogger("ray.serve")

FORWARDED_HEADERS = (b"accept", b"traceparent", b"tracestate", b"anthropic-version", b"anthropic-beta")
"""Request headers that reach an expert; a client's key never does."""
DRAINED_BYTES = 1024 * 1024
"""How much of a refused body is still read, so that the client sees the refusal."""


class JsonResponse(Response):
    """A JSON answer of our own."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


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
        self._router = router
        self._client_for = client_for
        self._gather_metrics = gather_metrics
        self._clock = clock
        self._clients: dict[str, ExpertClient] = {}
        self.health: dict[str, ExpertHealth] = {}
        self._dispatcher: Dispatcher
        self.apply(config)

    def apply(self, config: IngressConfig) -> None:
        """Put a configuration in force; clients and health of unchanged experts stay."""
        before = self.directory.config.experts
        self._clients = {
            name: self._clients[name]
            if name in self._clients and before.get(name) == target
            else self._client_for(name, target)
            for name, target in config.experts.items()
        }
        self.health = {name: self.health.get(name) or ExpertHealth(self._clock) for name in config.experts}
        self.directory.reconfigure(config)
        self._dispatcher = Dispatcher(
            self._clients,
            self.health,
            first_byte_limit_s=config.limits.first_token_timeout_s,
            clock=self._clock,
            observe=_observe_attempt,
        )

    def app(self) -> Starlette:
        """The ASGI app; only these paths are served."""
        generate = [Route(path, self.generate, methods=["POST"]) for path in KINDS]
        app = Starlette(
            routes=[
                *generate,
                Route("/v1/models", self.models, methods=["GET"]),
                Route("/v1/models/{model:path}", self.model, methods=["GET"]),
                Route("/v1/route", self.route, methods=["POST"]),
                Route("/health", self.alive, methods=["GET"]),
                Route("/ready", self.ready, methods=["GET"]),
                Route("/metrics", self.metrics, methods=["GET"]),
            ],
            exception_handlers={
                ApiError: _refuse,
                HTTPException: _refuse_http,
                Exception: _refuse_unforeseen,
            },
        )
        # A trailing slash is another path, not a hidden redirect of a POST.
        app.router.redirect_slashes = False
        return app

    async def generate(self, request: Request) -> Response:
        """Every endpoint that an expert answers."""
        request_id = _request_id(request)
        kind = KINDS[request.url.path]
        started = self._clock()
        try:
            ask = await self._read(request)
            with telemetry.stage_seconds.labels("route").time():
                choice = await self._choose(ask)
            deadline = self._deadline(request, ask)
            opened = await self._dispatcher.open(ask, choice, _forwarded(request, request_id), deadline)
        except ApiError as error:
            telemetry.requests.labels(kind, str(error.status)).inc()
            raise
        except (asyncio.CancelledError, ClientDisconnect):
            telemetry.requests.labels(kind, "disconnected").inc()
            raise
        telemetry.stage_seconds.labels("first_byte").observe(self._clock() - started)

        def finished(told: Relayed) -> None:
            self._account(kind, choice, opened, told, self._clock() - started)

        return Relay(opened.stream, _told(choice, opened, request_id), kind=kind, finished=finished)

    async def route(self, request: Request) -> Response:
        """What the same body would do, without doing it."""
        ask = await self._read(request, path="/v1/chat/completions")
        choice = await self._choose(ask)
        names = choice.views.keys() if choice.reason == "named" else self._known(choice)
        experts = {
            name: {
                "score": view.score if choice.reason == "routed" else None,
                "cost_usd": view.cost_usd,
                "ttft_ms": view.ttft_ms if view.ttft_ms is not None else self._ttft(name),
                "eligible": view.eligible,
                "excluded_because": view.excluded_because,
            }
            for name in names
            if (view := choice.views[name])
        }
        body = {
            "expert": choice.ranking[0],
            "ranking": list(choice.ranking),
            "policy": choice.policy_id,
            "reason": choice.reason,
            "experts": experts,
        }
        return JsonResponse(body, headers={"x-request-id": _request_id(request)})

    async def models(self, request: Request) -> Response:
        """`auto` first, then the presets, then the experts."""
        config = self.directory.config
        names = (AUTO, *config.presets, *config.experts)
        return JsonResponse({"object": "list", "data": [self._card(name) for name in names]})

    async def model(self, request: Request) -> Response:
        """One of them."""
        name = request.path_params["model"]
        config = self.directory.config
        if name != AUTO and name not in config.presets and name not in config.experts:
            raise NotFound(f"the model {name[:128]!r} does not exist", "model_not_found", "model")
        return JsonResponse(self._card(name))

    async def alive(self, request: Request) -> Response:
        """200: the ingress lives."""
        return JsonResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """200 when the router and every expert that should run can answer."""
        parts = {
            name: {"ready": part.ready, "why": part.why} for name, part in self.directory.parts().items()
        }
        if self.config_error is not None:
            parts["ingress"] = {"ready": False, "why": self.config_error}
        ready = all(part["ready"] for part in parts.values())
        return JsonResponse({"ready": ready, "parts": parts}, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """The whole application's metrics in the text format of Prometheus."""
        body = telemetry.exposition() if self._gather_metrics is None else await self._gather_metrics()
        return Response(body, media_type="text/plain; version=0.0.4")

    async def _read(self, request: Request, path: str | None = None) -> Ask:
        raw = await _body(request, int(self.args.max_body_mib * 1024 * 1024), self.args.upload_timeout_s)
        with telemetry.stage_seconds.labels("parse").time():
            return parse(
                path or request.url.path, raw, max_messages=self.directory.config.limits.max_messages
            )

    async def _choose(self, ask: Ask) -> Choice:
        unavailable = {
            name: "circuit breaker open" for name, health in self.health.items() if not health.available()
        }
        ttft_ms = {name: wait for name in self.health if (wait := self._ttft(name)) is not None}
        choice = await choose(
            ask,
            self.directory,
            self._router,
            unavailable=unavailable,
            ttft_ms=ttft_ms,
            deadline_s=self.args.router_deadline_ms / 1000,
        )
        if choice.reason == "fallback_router":
            telemetry.static_rankings.labels("no_decision").inc()
        return choice

    def _known(self, choice: Choice) -> list[str]:
        """Experts of the answer of /v1/route: the configured ones that the choice has a view of."""
        return [name for name in self.directory.config.experts if name in choice.views]

    def _ttft(self, name: str) -> float | None:
        health = self.health.get(name)
        return None if health is None else health.ttft_ms

    def _deadline(self, request: Request, ask: Ask) -> Deadline:
        seconds = ask.routing.timeout_s
        if seconds is None:
            seconds = _positive(request.headers.get("x-stainless-read-timeout"))
        limit_s = self.args.request_timeout_s
        return Deadline(min(seconds or limit_s, limit_s), self._clock)

    def _card(self, name: str) -> dict[str, Any]:
        config = self.directory.config
        if name in config.experts:
            window = self.directory.context_window(name)
        else:
            window = max(filter(None, map(self.directory.context_window, config.experts)), default=None)
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "to-router" if name not in config.experts else "expert",
            "max_model_len": window,
        }

    def _account(self, kind: str, choice: Choice, opened: Opened, told: Relayed, seconds: float) -> None:
        """The end of a request: metrics."""
        outcome = str(opened.stream.head.status) if told.outcome == "complete" else told.outcome
        telemetry.requests.labels(kind, outcome).inc()
        telemetry.decisions.labels(opened.expert, _reason(choice, opened)).inc()
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
            telemetry.baseline_usd.inc(dearest)


def _observe_attempt(attempt: Attempt) -> None:
    telemetry.attempts.labels(attempt.expert, attempt.outcome).inc()


def _reason(choice: Choice, opened: Opened) -> str:
    first = choice.ranking[0]
    return choice.reason if opened.expert == first else "fallback_expert"


def _told(choice: Choice, opened: Opened, request_id: str) -> dict[str, str]:
    """The response headers of the contract."""
    headers = {
        "x-router-expert": opened.expert,
        "x-router-attempts": str(len(opened.attempts)),
        "x-router-reason": _reason(choice, opened),
        "x-request-id": request_id,
    }
    if choice.reason == "named":
        return headers
    if choice.policy_id is not None:
        headers["x-router-policy"] = choice.policy_id
    view: Any = choice.views.get(opened.expert)
    if choice.reason == "routed" and view is not None:
        headers["x-router-score"] = f"{view.score:.4f}"
        if view.cost_usd is not None:
            headers["x-router-cost-usd"] = f"{view.cost_usd:.10f}".rstrip("0").rstrip(".")
    return headers


def _request_id(request: Request) -> str:
    given = request.headers.get("x-request-id", "")
    return (
        given if given and len(given) <= 128 and given.isascii() and given.isprintable() else uuid.uuid4().hex
    )


def _forwarded(request: Request, request_id: str) -> Headers:
    kept = [(name, value) for name, value in request.headers.raw if name in FORWARDED_HEADERS]
    return [*kept, (b"content-type", b"application/json"), (b"x-request-id", request_id.encode())]


def _positive(text: str | None) -> float | None:
    """A number of seconds in a header; anything else is as good as absent."""
    try:
        value = float(text) if text else 0.0
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


async def _body(request: Request, limit: int, timeout_s: float) -> bytes:
    """The request's body, bounded in size and time.

    Raises:
        TooLarge: it is longer than `limit` bytes.
        SlowUpload: it did not arrive within `timeout_s` seconds.
    """
    too_large = TooLarge(f"the body is larger than {limit / 1024 / 1024:g} MiB", "body_too_large")
    if (declared := request.headers.get("content-length", "")).isdigit() and int(declared) > limit:
        raise too_large
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in request.stream():
                size += len(piece)
                if size <= limit:
                    pieces.append(piece)
                elif size > limit + DRAINED_BYTES:
                    break
    except TimeoutError:
        raise SlowUpload(f"the body did not arrive within {timeout_s:g} s") from None
    if size > limit:
        raise too_large
    return b"".join(pieces)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 - Starlette calls by this very class
    return Refused(error, {"x-request-id": _request_id(request)})


async def _refuse_http(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, no such method."""
    status = getattr(error, "status_code", 500)
    if status == 405:
        allowed: Mapping[str, str] = getattr(error, "headers", None) or {}
        answer = MethodNotAllowed(f"{request.method} is not supported for this path")
        return Refused(answer, {**allowed, "x-request-id": _request_id(request)})
    return Refused(
        NotFound(f"there is no path {request.url.path[:256]!r} here", "path_not_found"),
        {"x-request-id": _request_id(request)},
    )


async def _refuse_unforeseen(request: Request, error: Exception) -> Response:
    """A fault of ours: the client gets the request id, the log the traceback."""
    request_id = _request_id(request)
    logger.error("unforeseen error in request %s", request_id, exc_info=error)
    return Refused(ApiError(f"internal error; request id {request_id}"), {"x-request-id": request_id})
