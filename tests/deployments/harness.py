"""The ingress for tests: the real application over HTTP, with fakes for all other processes."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import orjson

from deployments.canary.arm_reports import ArmSink
from deployments.config import IngressArgs, IngressConfig
from deployments.contracts.messages import PolicyView, RouterState
from deployments.ingress.access import Access
from deployments.ingress.api import Api
from deployments.ingress.feedback import AskOthers
from deployments.observability.record_sink import RecordSink
from deployments.observability.tracing import Tracer
from router.experts import Price
from tests.deployments.asgi_client import Exchange
from tests.deployments.fakes import FakeExpert, FakeRouter

CHAT = "/v1/chat/completions"
HELLO = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
NAMES = ("small", "large")
ARGS = IngressArgs(request_timeout_s=5)
PRICE = Price(1.0, 2.0)


class IngressHarness:
    """An Api, stand-ins for its router and experts, and a client that speaks HTTP to it.

    Args:
        names: the experts, as the router prefers them.
        ranking: the policy's static ranking.
        config: `user_config` of the ingress; under an expert's name, what is special of that expert.
    """

    def __init__(
        self,
        *,
        names: Sequence[str] = NAMES,
        args: IngressArgs = ARGS,
        price: Price = PRICE,
        ranking: Sequence[str] | None = None,
        access: Access | None = None,
        records: RecordSink | None = None,
        ask_others: AskOthers | None = None,
        tracer: Tracer | None = None,
        arms: ArmSink | None = None,
        **config: Any,
    ) -> None:
        self.access = access or Access()
        self.experts = {name: FakeExpert(name) for name in names}
        self.router = FakeRouter(*names)
        targets = {name: {"app": f"expert-{name}", **config.pop(name, {})} for name in names}
        presets = {"auto-cheap": {"cost_weight": 1.0}}
        settings = IngressConfig.model_validate({"experts": targets, "presets": presets, **config})
        self.api = Api(
            args,
            settings,
            self.router,
            client_for=lambda name, target: self.experts[name],
            access=self.access,
            records=records,
            ask_others=ask_others,
            tracer=tracer,
            arms=arms,
        )
        prices = dict.fromkeys(names, price)
        view = PolicyView("0123456789ab", tuple(names), tuple(ranking or names), {}, prices)
        self.api.registry.update_router(RouterState(view, None))
        for expert in self.api.registry.experts.values():
            expert.state.running, expert.state.why_not_ready = 1, None
        self.app = self.api.app
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://ingress")

    async def ask(self, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        return await self.http.post(CHAT, json={**HELLO, **fields}, headers=headers)

    def exchange(self, **fields: Any) -> Exchange:
        return Exchange(self.app, CHAT, orjson.dumps({**HELLO, **fields}))

    def scale_to_zero(self, *names: str) -> None:
        for name in names:
            state = self.api.registry.experts[name].state
            state.running, state.scaled_to_zero = 0, True


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
