"""The ingress' ASGI app in one process, without Ray: for profiles of our own code.

    python -m load_tests.mock --port 9100 &
    python -m experiments.ingress_alone --port 9000 --back-end http://127.0.0.1:9100/v1 &
    python -m load_tests --url http://127.0.0.1:9000 --concurrency 16
    py-spy record --pid … --format raw --output ingress.txt

Parsing, eligibility, admission, dispatch, relay and accounting are the real ones; the router returns a
constant, and the expert is an endpoint over HTTP.
"""

import argparse
from typing import Any

import uvicorn

from deployments.config import IngressArgs, IngressConfig
from deployments.contracts.messages import PolicyView, RouterResponse, RouterState
from deployments.ingress.api import Api
from deployments.upstream.http_client import RemoteExpert
from router.core import Decision, ExpertView, RouteRequest
from router.experts import Price

NAMES = ("arithmetic", "words")
PRICE = Price(0.05, 0.1)
STATE = RouterState(PolicyView("0123456789ab", NAMES, NAMES, {}, dict.fromkeys(NAMES, PRICE)), None)
VIEWS = {name: ExpertView(0.9, 1e-6, None, eligible=True) for name in NAMES}
DECISION = Decision(NAMES, VIEWS, "0123456789ab")


class ConstantRouter:
    """A router that always ranks the experts in the order of `NAMES`."""

    async def decide(self, request: RouteRequest, timeout_s: float, trace: Any = None) -> RouterResponse:
        """Return the constant."""
        return RouterResponse(DECISION)

    async def describe(self, timeout_s: float) -> RouterState:
        """Return the state of the constant policy."""
        return STATE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--back-end", default="http://127.0.0.1:9100/v1")
    options = parser.parse_args()
    experts = {name: {"url": options.back_end, "model": "mock", "context_window": 8192} for name in NAMES}
    config = IngressConfig.model_validate({"experts": experts})
    api = Api(IngressArgs(), config, ConstantRouter(), client_for=RemoteExpert)
    api.registry.update_router(STATE)
    for expert in api.registry.experts.values():
        expert.state.why_not_ready = None
    uvicorn.run(api.app, host="127.0.0.1", port=options.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
