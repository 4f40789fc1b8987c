"""Refresh the registry: from the router, from Serve's controller, from the engines themselves.

Reads the payload of Serve's REST API as the controller gives it. `serve.status()` requests the same
and then builds Serve's own classes of it, which pickle each deployment's functions again: tens of
milliseconds of a processor, every second, in every ingress replica.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
import ray
import ray.exceptions
from ray.serve import context

from deployments.contracts.blocking_calls import BlockingCalls
from deployments.contracts.errors import ExpertError
from deployments.contracts.messages import RouterState
from deployments.contracts.protocols import ExpertClient
from deployments.upstream.registry import Expert, ExpertRegistry, ExpertState

logger = logging.getLogger("ray.serve")

PERIOD_S = 1.0
STATUS_TIMEOUT_S = 10.0
DESCRIBE_TIMEOUT_S = 2.0
MODELS_TIMEOUT_S = 5.0
STARTING = ("STARTING", "UPDATING", "RECOVERING")
CAUSES = (
    ("taken more than", "its replicas wait for resources, or take long to start"),
    ("Upscaling", "more replicas start"),
    ("Downscaling", "replicas stop"),
)
"""Part of a message of Serve → the cause that clients see.

Serve's messages contain tracebacks of replicas, with their paths and whatever an exception quotes.
"""
FAILED = "the deployment failed; the log of the ingress has the reason"


def applications() -> Mapping[str, Any]:
    """Read every application by name, as `GET /api/serve/applications/` shows it; blocks.

    Calls the controller itself: Serve's client waits for it without any bound (Ray 2.60).

    Raises:
        RayServeException: there is no controller.
        RayError: it does not respond.
    """
    details = context._get_global_client()._controller.get_serve_instance_details.remote()
    known: Mapping[str, Any] = ray.get(details, timeout=STATUS_TIMEOUT_S)["applications"]
    return known


class Discovery:
    """Keeps a registry up to date.

    Args:
        registry: the registry.
        describe: requests the state of a router replica within so many seconds; raises `TimeoutError` or
            `ConnectionError`.
        applications: reads Serve's applications by name; may block.
        timeout_s: bound of one reading of them.
    """

    def __init__(
        self,
        registry: ExpertRegistry,
        describe: Callable[[float], Awaitable[RouterState]],
        applications: Callable[[], Mapping[str, Any]] = applications,
        timeout_s: float = STATUS_TIMEOUT_S,
    ) -> None:
        self._registry, self._describe, self._applications = registry, describe, applications
        self._timeout_s = timeout_s
        self._controller = BlockingCalls("discovery")

    async def run(self) -> None:
        """Refresh every second, until cancelled; a failed refresh shows in `/ready` and is never fatal."""
        while True:
            try:
                await self.refresh()
            except (TimeoutError, ray.exceptions.RayError) as error:
                why = type(error).__name__
                logger.warning("Serve's controller does not respond (%s); the last view stays", why)
            except Exception:
                logger.exception("refreshing the view of the graph failed; the last view stays")
            await asyncio.sleep(PERIOD_S)

    async def refresh(self) -> None:
        """Refresh the states of the router and of every expert once."""
        try:
            state = await self._describe(DESCRIBE_TIMEOUT_S)
        except (TimeoutError, ConnectionError) as error:
            self._registry.lose_router(f"the router does not respond ({type(error).__name__})")
        else:
            self._registry.update_router(state)
        known = await self._controller.run(self._applications, timeout_s=self._timeout_s)
        stale: list[Expert] = []
        for expert in self._registry.experts.values():
            app = expert.target.app
            if app is None:
                expert.state.why_not_ready = None
                continue
            update(expert.state, known.get(app), app)
            if expert.state.running and expert.state.window_is_stale:
                stale.append(expert)
        # Side by side: an expert that hangs shall not keep the next refresh from the others.
        await asyncio.gather(*(_refresh_window(expert) for expert in stale))


def update(state: ExpertState, application: Mapping[str, Any] | None, app: str) -> None:
    """Put the controller's view of an expert's application into the expert's state.

    Args:
        state: the state to change.
        application: the controller's view; `None` where there is no such application.
        app: the application's name.
    """
    if application is None:
        state.running, state.scaled_to_zero = 0, False
        state.starting = state.stopping = 0
        state.phase, state.context_window = "", None
        state.why_not_ready = f"application {app!r} is not deployed"
        return
    deployments = application.get("deployments", {}).values()
    replicas = Counter(replica["state"] for d in deployments for replica in d.get("replicas", ()))
    state.running = replicas["RUNNING"]
    state.starting = sum(replicas[phase] for phase in STARTING)
    state.stopping = replicas["STOPPING"]
    phase = application["status"]
    if phase != state.phase:
        state.phase, state.window_is_stale = phase, True
    messages = [application.get("message"), *(d.get("message") for d in deployments)]
    detail = "; ".join(filter(None, messages))
    state.scaled_to_zero = state.running == 0 and phase == "RUNNING"
    before = state.why_not_ready
    state.why_not_ready = None if state.running or state.scaled_to_zero else _cause(phase, detail)
    if detail and state.why_not_ready not in {None, before}:
        logger.warning("application %s is not ready, %s: %s", app, phase, detail)


def _cause(phase: str, detail: str) -> str:
    """Why an application has no replica, without any text of an exception."""
    if phase in {"DEPLOY_FAILED", "UNHEALTHY"} or "Traceback" in detail:
        return f"{phase.lower()}: {FAILED}"
    cause = next((cause for text, cause in CAUSES if text in detail), "")
    return f"{phase.lower()}: {cause}" if cause else phase.lower()


async def _refresh_window(expert: Expert) -> None:
    window = await _context_window(expert.name, expert.client)
    if window is not None:
        expert.state.context_window, expert.state.window_is_stale = window, False


async def _context_window(name: str, client: ExpertClient) -> int | None:
    """Read an engine's own context window; `None` where it does not respond or has none."""
    stream = None
    try:
        async with asyncio.timeout(MODELS_TIMEOUT_S):
            stream = await client.open("GET", "/v1/models", (), b"", MODELS_TIMEOUT_S)
            body = stream.head.body
            if not stream.head.complete:  # else its client itself reads what is left
                body += b"".join([chunk async for chunk in stream.rest])
    except (ExpertError, TimeoutError) as error:
        logger.info("context window of %s not read yet: %s", name, error)
        return None
    finally:
        if stream is not None:
            await stream.aclose()
    try:
        window = orjson.loads(body)["data"][0].get("max_model_len")
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return None
    return window if isinstance(window, int) else None
