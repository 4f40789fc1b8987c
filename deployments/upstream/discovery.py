"""Refresh the registry: from the router, from Serve's controller, from the engines themselves.

Reads the payload of Serve's REST API as the controller gives it. `serve.status()` requests the same
and then builds Serve's own classes of it, which pickle each deployment's functions again: tens of
milliseconds of a processor, every second, in every ingress replica.
"""

import asyncio
import logging
import time
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
from deployments.contracts.variants import ADAPTERS_PATH
from deployments.upstream.adapter_reports import AdapterReports
from deployments.upstream.expert import Expert, ExpertState
from deployments.upstream.registry import ExpertRegistry
from router.priors.shape import shape_of

logger = logging.getLogger("ray.serve")

PERIOD_S = 1.0
STATUS_TIMEOUT_S = 10.0
DESCRIBE_TIMEOUT_S = 2.0
MODELS_TIMEOUT_S = 5.0
RUNNING = ("RUNNING", "UPDATING")
"""One that takes over a new `user_config` lives: its requests go on, and new ones wait in Serve meanwhile."""
STARTING = ("STARTING", "RECOVERING")
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
        clock: monotonic seconds.
    """

    def __init__(
        self,
        registry: ExpertRegistry,
        describe: Callable[[float], Awaitable[RouterState]],
        applications: Callable[[], Mapping[str, Any]] = applications,
        timeout_s: float = STATUS_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._describe, self._applications = registry, describe, applications
        self._timeout_s, self._clock = timeout_s, clock
        self._controller = BlockingCalls("discovery")
        self._reads: dict[str, asyncio.Task[None]] = {}
        """Application → a reading of its adapters, which no refresh waits for."""
        self._reports: dict[str, AdapterReports] = {}

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
        stale: dict[int, Expert] = {}
        with_adapters: dict[str, list[Expert]] = {}
        for expert in self._registry.experts.values():
            app = expert.target.app
            if app is None:
                expert.state.why_not_ready = None
                continue
            update(expert.state, known.get(app), app)
            if expert.state.running and expert.state.window_is_stale:
                stale.setdefault(id(expert.state), expert)  # variants share their engine's state
            if expert.target.adapter is None:
                continue
            if expert.state.running:
                with_adapters.setdefault(app, []).append(expert)
            else:  # its next replica decides afresh: an expert that is excluded would never be started
                self._reports.pop(app, None)
                expert.adapter_error = None
        for app, experts in with_adapters.items():
            self._refresh_adapters(app, experts)
        # Side by side: an expert that hangs shall not keep the next refresh from the others.
        await asyncio.gather(*(_refresh_window(expert) for expert in stale.values()))

    def _refresh_adapters(self, app: str, experts: list[Expert]) -> None:
        reports = self._reports.setdefault(app, AdapterReports(self._clock))
        _take_over(experts, reports)
        state, reading = experts[0].state, self._reads.get(app)
        adapters = [expert.target.adapter or "" for expert in experts]
        if (reading is None or reading.done()) and reports.is_due(adapters, (state.phase, state.running)):
            self._reads[app] = asyncio.create_task(_read_adapters(experts, reports))


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
    state.running = sum(replicas[phase] for phase in RUNNING)
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
    card = await _model_card(expert.name, expert.client)
    window = card.get("max_model_len")
    if isinstance(window, int):
        expert.state.context_window, expert.state.window_is_stale = window, False
        root, config = card.get("root"), card.get("config")
        expert.state.model = root if isinstance(root, str) and isinstance(config, dict) else None
        expert.state.shape = shape_of(config) if isinstance(config, dict) else None


async def _read_adapters(experts: list[Expert], reports: AdapterReports) -> None:
    """Read which adapters of an application are loaded, as one of its replicas reports."""
    state = experts[0].state
    seen = (state.phase, state.running)
    body = await _read(experts[0].name, experts[0].client, ADAPTERS_PATH)
    try:
        report = {} if body is None else orjson.loads(body)
        replica, adapters = report.get("replica", ""), report["adapters"]
    except (orjson.JSONDecodeError, LookupError, AttributeError):
        return
    if isinstance(adapters, dict) and state.running:
        reports.add(str(replica), adapters, seen)
        _take_over(experts, reports)


def _take_over(experts: list[Expert], reports: AdapterReports) -> None:
    """Exclude the experts whose adapter no replica has; without a report of late nothing changes."""
    for expert in experts:
        reasons = reports.reasons(expert.target.adapter or "", expert.state.running)
        if not reasons:
            continue
        error = None if None in reasons else reasons[-1]
        if error is not None and expert.adapter_error in reasons:
            continue  # the replicas' reasons differ: it keeps one, and the log has a line of it once
        if error is not None:
            logger.warning(
                "adapter %s of expert %s is not loaded: %s", expert.target.adapter, expert.name, error
            )
        expert.adapter_error = error


async def _model_card(name: str, client: ExpertClient) -> Mapping[str, Any]:
    """Read an engine's card of its model; empty where it does not respond or has none."""
    body = await _read(name, client, "/v1/models")
    try:
        card = {} if body is None else orjson.loads(body)["data"][0]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return {}
    return card if isinstance(card, dict) else {}


async def _read(name: str, client: ExpertClient, path: str) -> bytes | None:
    """Read what an expert has at a path; `None` where it does not respond."""
    stream = None
    try:
        async with asyncio.timeout(MODELS_TIMEOUT_S):
            stream = await client.open("GET", path, (), b"", MODELS_TIMEOUT_S)
            if stream.head.complete:  # its client itself reads what is left
                return stream.head.body
            return stream.head.body + b"".join([chunk async for chunk in stream.rest])
    except (ExpertError, TimeoutError) as error:
        logger.info("%s of %s not read yet: %s", path, name, error)
        return None
    finally:
        if stream is not None:
            await stream.aclose()
