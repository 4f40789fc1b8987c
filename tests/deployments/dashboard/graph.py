"""The real API of the ingress over HTTP with fakes behind it, for tests of the page without Ray."""

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import uvicorn

from deployments.config import IngressArgs, IngressConfig
from deployments.contracts.errors import ExpertUnavailable
from deployments.contracts.heartbeats import Progress
from deployments.contracts.messages import (
    Head,
    Headers,
    PolicyView,
    RouterResponse,
    RouterState,
    ServedPlan,
)
from deployments.contracts.protocols import ResponseStream
from deployments.ingress.access import Access
from deployments.ingress.api import Api
from deployments.limits.keys import KeyRing
from router.core import PlanView, Preferences, RouteRequest
from router.decide import as_decisions, decide
from router.experts import Price
from router.plans.acceptance import FEATURES, AcceptanceModel
from router.plans.plan import Plan
from tests.deployments.fakes import EVENTS, event

NAMES = ("arithmetic", "words", "atlas", "generalist")
CHEAP = Price(0.05, 0.10)
PRICES = {**dict.fromkeys(NAMES[:3], CHEAP), "generalist": Price(0.30, 0.60)}
DEFAULT = Preferences(cost_weight=0.3)
ABOUT = {
    "arithmetic": {"description": "sums", "example": "What is 12 + 30?"},
    "generalist": {"description": "everything else", "example": "Why is the sky blue?"},
}
PROMPT_TOKENS = 20
ANSWER_TOKENS = 4
POLICY_ID = "0123456789ab"
POLICY_FOLDER = "no-such-folder/policy"


class ScriptedExpert:
    """Streams its text a word at a time and reports its usage, or is unavailable."""

    def __init__(self, name: str) -> None:
        self.model = name
        self.text = f"this is {name} speaking"
        self.thoughts: list[tuple[str, str]] = []
        """Field of the delta and text, before the answer."""
        self.bodies: list[bytes] = []
        self.away = False
        self.pause_s = 0.0

    async def open(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: bytes,
        timeout_s: float,
        connect_s: float | None = None,
        progress: Progress | None = None,
    ) -> ResponseStream:
        if self.away:
            raise ExpertUnavailable(self.model, "it is away")
        self.bodies.append(body)
        return ResponseStream(Head(200, EVENTS, event(self.model, ""), complete=False), self._rest())

    async def retire(self) -> None:
        """Nothing to release."""

    async def _rest(self) -> AsyncGenerator[bytes, None]:
        for field, thought in self.thoughts:
            yield event(self.model, thought, field=field)
        words = self.text.split(" ")
        for index, word in enumerate(words):
            await asyncio.sleep(self.pause_s)
            yield event(self.model, word if index == 0 else f" {word}")
        usage = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": ANSWER_TOKENS,
            "total_tokens": PROMPT_TOKENS + ANSWER_TOKENS,
        }
        chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": self.model, "choices": []}
        yield b"data: " + orjson.dumps({**chunk, "usage": usage}) + b"\n\ndata: [DONE]\n\n"


PLAN = Plan("check", ("arithmetic",), "generalist", 0.5)


class ScriptedRouter:
    """Predicts that arithmetic is good at queries with a digit; decides by the real rule.

    A plan that takes effect comes before all experts.
    """

    policy_id = POLICY_ID
    plan: Plan | None = None

    async def decide(self, request: RouteRequest, timeout_s: float, *trace: Any) -> RouterResponse:
        sums = any(letter.isdigit() for letter in request.query)
        scores = np.array([[0.86 if sums else 0.1, 0.1 if sums else 0.8, 0.1, 0.9]])
        costs = np.array([[PRICES[name].cost_usd(PROMPT_TOKENS, ANSWER_TOKENS) for name in NAMES]])
        eligible = np.array([[name not in request.excluded for name in NAMES]])
        preferences = request.preferences.over(DEFAULT)
        waits = np.array([[request.ttft_ms.get(name, np.nan) for name in NAMES]])
        ranked = decide(scores, costs, preferences=preferences, eligible=eligible)
        (decision,) = as_decisions(
            ranked,
            scores,
            costs,
            waits,
            names=NAMES,
            exclusions=[request.excluded],
            preferences=[preferences],
            policy_id=self.policy_id,
            unfamiliar=[False],
        )
        if self.plan is not None and request.plans:
            view = decision.experts[self.plan.ask[0]]
            planned = PlanView(view, self.plan.ask, 1, self.plan.otherwise, 0.75, 100.0)
            ranking = (self.plan.name, *decision.ranking)
            decision = replace(decision, ranking=ranking, plans={self.plan.name: planned})
        return RouterResponse(decision)


class Graph:
    """A running ingress: its address, and its parts for tests to change."""

    def __init__(self, *, allow_anonymous: bool = False, **args: Any) -> None:
        self.experts = {name: ScriptedExpert(name) for name in NAMES}
        experts = {name: {"app": f"expert-{name}", **ABOUT.get(name, {})} for name in NAMES}
        config = IngressConfig.model_validate({"experts": experts, "allow_anonymous": allow_anonymous})
        self.router = ScriptedRouter()
        self.access = Access()
        self.api = Api(
            IngressArgs(**{"request_timeout_s": 5, "router_deadline_ms": 2_000, **args}),
            config,
            self.router,
            client_for=lambda name, target: self.experts[name],
            access=self.access,
        )
        self.api.registry.update_router(RouterState(policy_view(), None))
        for expert in self.api.registry.experts.values():
            expert.state.running, expert.state.why_not_ready = 1, None
        self.url = ""

    def swap_policy(self, policy_id: str, prices: dict[str, Price]) -> None:
        """Let another policy take effect in router and ingress."""
        self.router.policy_id = policy_id
        self.api.registry.update_router(RouterState(replace(policy_view(policy_id), prices=prices), None))

    def serve_plan(self, p_right: float) -> None:
        """Let a plan take effect whose members' answers are right with this probability."""
        blank = np.zeros(len(FEATURES))
        model = AcceptanceModel(blank, blank, blank + 1, float(np.log(p_right / (1 - p_right))))
        self.router.plan = PLAN
        view = replace(policy_view(), plans={PLAN.name: ServedPlan(PLAN, model)})
        self.api.registry.update_router(RouterState(view, None))

    def require_keys(self, ring: KeyRing | None) -> None:
        """Require a key of this ring from now on; `None` requires none."""
        self.access.replace(ring, None)


def policy_view(policy_id: str = POLICY_ID, folder: str = POLICY_FOLDER) -> PolicyView:
    """The policy as the ingress knows it."""
    return PolicyView(
        policy_id,
        NAMES,
        ("generalist", "words", "arithmetic", "atlas"),
        {},
        PRICES,
        folder=folder,
        best_single="generalist",
        preferences=DEFAULT,
    )


@contextmanager
def serving(**args: Any) -> Iterator[Graph]:
    """The ingress on a free port of loopback, in a thread."""
    graph = Graph(**args)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        graph.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        settings = uvicorn.Config(graph.api.app, log_level="error", lifespan="off", ws="none")
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield graph
        finally:
            server.should_exit = True
            thread.join(timeout=10)
