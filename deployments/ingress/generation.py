"""Request pipeline: key, body, limits, admission, resolution, dispatch, relay, accounting.

`/v1/route` takes the same steps up to the resolution and returns what it found.
"""

import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.config import IngressArgs
from deployments.contracts.call_order import CallOrder, PlanToCarryOut
from deployments.contracts.conversation import UNKNOWN, Conversation
from deployments.contracts.deadlines import Deadline
from deployments.contracts.endpoints import ENDPOINTS
from deployments.contracts.errors import ErrorCode, NotAllowed, TooMany, Unavailable
from deployments.contracts.messages import TraceContext
from deployments.contracts.protocols import Decider
from deployments.contracts.requests import InferenceRequest, parse, parse_for_any_endpoint
from deployments.contracts.sse import StreamObserver
from deployments.ingress import headers
from deployments.ingress.access import Access
from deployments.ingress.accounting import Account, Accounting
from deployments.ingress.body import read_body
from deployments.ingress.body_budget import BodyBudget, HeldBytes
from deployments.ingress.limited import LimitedEndpoints
from deployments.ingress.parsing import BodyParser
from deployments.ingress.relay import Relay
from deployments.ingress.request_ids import client_request_id, request_id
from deployments.ingress.resolution import resolve_model
from deployments.ingress.token_counts import largest_count
from deployments.limits.admission import AdmissionQueue, acquire_within
from deployments.limits.keys import Caller, key_id
from deployments.limits.ledger_client import Reservation
from deployments.observability import metrics
from deployments.upstream.attempts import OpenedResponse
from deployments.upstream.conversations import Conversations
from deployments.upstream.plan_executor import PlanExecutor
from deployments.upstream.registry import ExpertRegistry
from router.core import ExpertView

SALT_PREFIX = "#key:"
"""No name of an expert or an adapter begins so."""
MAX_ATTEMPTS = {0: None, 1: 2}
"""Maximum attempts by client retry count; 1 if not listed, `None` for the whole ranking."""


class Generation:
    """Handlers of all endpoints that an expert serves.

    Args:
        args: deadlines and the largest body.
        registry: the experts.
        router: decides for `auto` and presets.
        queue: admission to this replica.
        executor: calls the experts.
        accounting: opens an account for each request.
        access: keys and their limits.
        limited: serves `/v1/route`.
        bodies: the bytes of all bodies in flight.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        args: IngressArgs,
        registry: ExpertRegistry,
        router: Decider,
        *,
        queue: AdmissionQueue,
        executor: PlanExecutor,
        accounting: Accounting,
        access: Access,
        limited: LimitedEndpoints,
        bodies: BodyBudget,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._args = args
        self._registry = registry
        self._router = router
        self._queue = queue
        self._executor = executor
        self._accounting = accounting
        self._access = access
        self._limited = limited
        self._bodies = bodies
        self._parser = BodyParser(args.request_timeout_s)
        self._clock = clock
        self._conversations = Conversations(clock)

    async def generate(self, path: str, request: Request) -> Response:
        """Forward a request for one of `ENDPOINTS` to an expert, and relay its response."""
        endpoint = ENDPOINTS[path]
        account = self._accounting.open(
            request_id(request), endpoint.kind, headers.trace_context(request), client_request_id(request)
        )
        with ExitStack() as undo:
            with account.closed_on_error():
                opened, reservation, deadline = await self._open(path, request, account, undo)
            release = undo.pop_all()

        def finished(observer: StreamObserver) -> None:
            with release:
                if observer.failed:
                    opened.broke()
                elif observer.outcome == "complete":
                    usage = observer.usage()
                    opened.read_to_end(observer.tokens_counted() if usage is None else usage[1])
                try:
                    account.ended(observer)
                finally:
                    charge = account.charge(observer)
                    reservation.settle(charge.tokens, charge.usd)

        response_headers = headers.of_response(account.call_order, opened, account.request_id)
        return Relay(
            opened.stream,
            response_headers,
            endpoint=endpoint,
            left_s=deadline.left_s,
            idle_s=self._registry.config.limits.stream_idle_timeout_s,
            finished=finished,
            hides_usage=account.request is not None and account.request.hides_usage,
        )

    async def _open(
        self, path: str, request: Request, account: Account, undo: ExitStack
    ) -> tuple[OpenedResponse, Reservation, Deadline]:
        """From a request to the first byte of a response; `undo` releases what is held on the way."""
        account.caller = caller = self._access.caller(request)
        owner = key_id(caller)
        self._queue.reject_early(owner)
        held = self._bodies.hold(account.request_id)
        undo.callback(held.release)
        parsed = await self._read(path, request, account, held)
        if caller is not None and caller.batch:
            routing = parsed.routing.model_copy(update={"priority": "batch"})
            parsed = replace(parsed, routing=routing)
        account.request = parsed
        whole = self._deadline(parsed.routing.timeout_s, account.started)
        # The client's own read timeout is the longest silence that it bears: it ends with the first byte.
        seconds = parsed.routing.timeout_s or headers.read_timeout_s(request)
        deadline = self._deadline(seconds, account.started)
        reservation = await self._reserve(caller, parsed)
        undo.callback(_settle, reservation, account)
        with account.stage("admit"):
            await acquire_within(deadline, (self._queue,), parsed.routing.priority, owner)
        undo.callback(self._queue.release, self._queue.occupy(parsed.sequences, owner), owner)
        conversation = parsed.conversation.named(headers.conversation_name(request))
        account.unit = self._conversations.unit(owner, conversation, account.request_id)
        with account.stage("route"):
            account.order = order = await self._resolve(
                parsed,
                caller,
                account.span.context,
                carries_out_plans=not headers.retries(request),
                conversation=conversation,
                request_id=account.request_id,
                unit=account.unit,
            )
        if order.plan is not None and caller is not None:
            extra = await self._reserve_plan(caller, parsed, order.plan)
            if extra is None:  # the key's remainder allows one answer, not a plan
                account.order = order = replace(order, plan=None)
            else:
                undo.callback(extra.settle, 0, 0.0)
        for name in order.scale_up:
            self._registry.scale_up(name)
        dispatched = self._clock()
        dispatch = partial(
            self._executor.open,
            parsed,
            headers=headers.forwarded(
                request, account.request_id, account.span.context, conversation.replica_key(owner)
            ),
            deadline=deadline,
            max_attempts=MAX_ATTEMPTS.get(headers.retries(request), 1),
            failed=account.failed_attempts,
            cache_salt=self._cache_salt(caller),
            owner=owner,
        )
        if parsed.kind == "count_tokens" and order.reason != "named":
            warm = [name for name in order.ranking if not self._registry.experts[name].state.is_cold]
            opened = await largest_count(
                lambda name: dispatch(replace(order, ranking=(name,), fallback=False)),
                warm or order.ranking,
                lambda unused: unused.slot.release(unused.slots_held, owner),
            )
            account.order = replace(order, ranking=(opened.expert,))
        else:
            opened = await dispatch(order)
        if order.cached_tokens:
            stays = opened.expert == list(order.cached_tokens)[-1]
            metrics.conversation_turns.labels("stayed" if stays else "moved").inc()
        self._conversations.remember(owner, conversation, opened.expert, parsed.prompt_tokens, account.unit)
        account.request = parsed.without_body()
        held.release()
        undo.callback(opened.slot.release, opened.slots_held, owner)
        account.responded(opened, dispatched)
        return opened, reservation, whole

    async def _read(self, path: str, request: Request, account: Account, held: HeldBytes) -> InferenceRequest:
        """Read a body and what routing needs of it; the bytes themselves are dropped."""
        raw = await read_body(request, self._args.max_body_bytes, self._args.upload_timeout_s, held)
        read = partial(parse, path, **self._bounds())
        with account.stage("parse"):
            return await self._parser.parse(read, raw)

    async def route(self, request: Request) -> Response:
        """Return the decision for a body without acting on it."""
        answer = partial(self._route, headers.conversation_name(request))
        return await self._limited.serve(request, "route", self._args.max_body_bytes, answer)

    async def _route(self, name: str | None, raw: bytes, account: Account) -> Response:
        parsed = await self._parser.parse(partial(parse_for_any_endpoint, **self._bounds()), raw)
        order = await self._resolve(
            parsed, account.caller, account.span.context, conversation=parsed.conversation.named(name)
        )
        sentences = order.sentences()
        experts = {
            name: _candidate(view, sentences[name])
            | {
                "ttft_ms": view.ttft_ms if view.ttft_ms is not None else expert.latency.ttft_ms,
                "latency_ms": view.latency_ms if view.latency_ms is not None else expert.latency.latency_ms,
            }
            for name, expert in self._registry.experts.items()
            if (view := order.views.get(name)) is not None
        }
        plans = {
            name: _candidate(plan.view, sentences.get(name))
            | {
                "ask": list(plan.ask),
                "samples": plan.samples,
                "else": plan.otherwise,
                "p_accept": plan.p_accept,
                "hold_ms": plan.hold_ms,
            }
            for name, plan in order.decision.plans.items()
        }
        planned = order.plan is not None
        body = {
            "expert": order.decision.expert if planned else order.ranking[0],
            "ranking": list(order.decision.ranking if planned else order.ranking),
            "policy": order.policy_id,
            "reason": order.reason_for(order.ranking[0]),
            "required_score": order.decision.required_score,
            "experts": experts,
            "plans": plans,
        }
        return JSONResponse(body)

    def _bounds(self) -> dict[str, Any]:
        """What the configuration in effect says of reading a body."""
        config = self._registry.config
        return {"max_messages": config.limits.max_messages, "harness_tags": config.query.harness_tags}

    async def _reserve(self, caller: Caller | None, parsed: InferenceRequest) -> Reservation:
        return await self._access.reserve(caller, *self._most_of_one_answer(caller, parsed))

    async def _reserve_plan(
        self, caller: Caller, parsed: InferenceRequest, planned: PlanToCarryOut
    ) -> Reservation | None:
        """What a plan may use beyond one answer; `None` where the key's limits do not allow it."""
        more = planned.plan.most_answers - 1
        tokens, usd, completion_usd = self._most_of_one_answer(caller, parsed)
        try:
            return await self._access.reserve(
                caller, more * tokens, more * usd, more * completion_usd, admitted=True
            )
        except TooMany:
            return None

    def _most_of_one_answer(
        self, caller: Caller | None, parsed: InferenceRequest
    ) -> tuple[int, float, float]:
        """The most tokens and US$ that one answer can take, and the part of the US$ for its completion."""
        prompt, completion = parsed.most_prompt_tokens, parsed.most_completion_tokens
        policy = self._registry.policy
        prices = () if policy is None or caller is None else policy.prices.values()
        usd = max((price.cost_usd(prompt, completion) for price in prices), default=0.0)
        prompt_usd = max((price.cost_usd(prompt, 0) for price in prices), default=0.0)
        return prompt + completion, usd, max(0.0, usd - prompt_usd)

    async def _resolve(
        self,
        parsed: InferenceRequest,
        caller: Caller | None,
        trace: TraceContext,
        *,
        carries_out_plans: bool = True,
        conversation: Conversation = UNKNOWN,
        request_id: str = "",
        unit: str | None = None,
    ) -> CallOrder:
        cached = self._registry.with_shared_prefixes(
            self._conversations.cached_tokens(key_id(caller), conversation)
        )
        try:
            order = await resolve_model(
                parsed,
                self._registry,
                self._router,
                deadline_s=self._args.router_deadline_ms / 1000,
                allowed=None if caller is None else self._allowed(caller, parsed.model),
                preset=None if caller is None else caller.preset,
                trace=trace,
                carries_out_plans=carries_out_plans,
                cached_tokens=cached,
                request_id=request_id,
                unit=unit,
            )
        except Unavailable as error:
            wait_s = error.retry_after_s or self._registry.retry_after_s()
            raise Unavailable(error.message, error.code, error.param, wait_s) from error
        if cached:
            order = replace(order, cached_tokens=cached)
        if order.cause is not None:
            metrics.static_rankings.labels(order.cause).inc()
        return order

    def _allowed(self, caller: Caller, model: str) -> Collection[str] | None:
        """The experts that a key may use; `None` for all. A budget in US$ needs their prices.

        Raises:
            NotAllowed: the named expert has no price.
            Unavailable: no price is known yet.
        """
        if caller.limits.usd_per_day is None:
            return caller.experts
        policy = self._registry.policy
        if policy is None:
            raise Unavailable(
                "the key has a budget, and prices are not known before the router responds",
                ErrorCode.STARTING,
            )
        if model in self._registry.experts and model not in policy.prices:
            raise NotAllowed(
                f"the key has a budget (usd_per_day), and the model {model!r} has no price",
                ErrorCode.MODEL_NOT_ALLOWED,
                "model",
            )
        experts = self._registry.experts if caller.experts is None else caller.experts
        return {name for name in experts if name in policy.prices}

    def _cache_salt(self, caller: Caller | None) -> str | None:
        """What separates a key in prefix caches: by the time, a client could guess the prompts of others."""
        isolated = caller is not None and self._registry.config.cache_isolation == "key"
        return f"{SALT_PREFIX}{key_id(caller)}:" if isolated else None

    def _deadline(self, seconds: float | None, started: float) -> Deadline:
        limit_s = self._args.request_timeout_s
        return Deadline(min(seconds or limit_s, limit_s), self._clock, started)


def _candidate(view: ExpertView, reason: str | None) -> dict[str, Any]:
    """What `/v1/route` returns of an expert and of a plan alike."""
    return {
        "score": view.score,
        "cost_usd": view.cost_usd,
        "ttft_ms": view.ttft_ms,
        "wait_ms": view.wait_ms,
        "latency_ms": view.latency_ms,
        "eligible": view.eligible,
        "excluded_because": view.excluded_because,
        "utility": view.utility,
        "reason": reason,
    }


def _settle(reservation: Reservation, account: Account) -> None:
    """Charge a request without a response for the attempts that failed, or were left."""
    charge = account.charge()
    reservation.settle(charge.tokens, charge.usd)
