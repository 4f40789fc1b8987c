"""Serve deployment of the ingress: builds the API at the first configuration, and follows later ones."""

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.canary.arm_reports import ArmReports
from deployments.canary.ray_coordinator import CoordinatorHandle
from deployments.config import IngressArgs, IngressConfig, LogSettings
from deployments.contracts.blocking_calls import BlockingCalls
from deployments.ingress.access import Access
from deployments.ingress.api import Api
from deployments.ingress.body_budget import BodyBudget
from deployments.ingress.configuration import ConfigRejectedError, last_config, may_replace, validated
from deployments.ingress.configured_keys import ConfiguredKeys
from deployments.ingress.memory import return_large_blocks
from deployments.last_good import LastGood
from deployments.limits.keys import KeyRing
from deployments.limits.ledger_client import LedgerClient
from deployments.limits.ray_ledger import LedgerHandle
from deployments.observability import metrics, tracing
from deployments.observability.broadcast import Replicas
from deployments.observability.decision_log import ConfiguredLog
from deployments.observability.recent_answers import AnswerOrigin, RecentAnswers, origins_in_log
from deployments.replica import replica_id, replica_name, replica_path
from deployments.routing.client import RouterClient
from deployments.settings import resolve, state_folder
from deployments.upstream.discovery import Discovery, applications
from deployments.upstream.serve_client import expert_client
from router.learning.log import log_files
from router.learning.record import NewerRecordError

logger = logging.getLogger("ray.serve")

T = TypeVar("T")

FILES_TIMEOUT_S = 30.0
"""Bound of each reading and writing of files at a configuration: a shared folder may hang."""


def ledger_client(counts: Path) -> LedgerClient:
    """Make this replica's client of the common ledger.

    Each has a name of its own: the ledger recognises late calls by their numbers.
    """
    return LedgerClient(f"{replica_id()}-{uuid4().hex[:8]}", LedgerHandle(str(counts)))


def _reporter() -> str:
    """A name for this process' sums: those of the process before it under the same id stay as they are."""
    return f"{replica_id()}-{uuid4().hex[:8]}"


class Ingress:
    """One replica of the ingress.

    Args:
        args: shape of the deployment.
        router: handle of the router deployment.
        last_good: keeps the last valid configuration.
        ledger_client: makes the client of the common ledger, from the file of its counts.
        applications: reads Serve's applications by name; blocks.
    """

    def __init__(
        self,
        args: IngressArgs,
        router: Any,
        *,
        last_good: LastGood | None = None,
        ledger_client: Callable[[Path], LedgerClient] = ledger_client,
        applications: Callable[[], Mapping[str, Any]] = applications,
    ) -> None:
        return_large_blocks()
        self._args = args
        self.bodies = BodyBudget(args.max_bodies_bytes, args.max_body_bytes, args.upload_timeout_s)
        """Also of the middleware around Serve's HTTP server in this process."""
        self._router = RouterClient(router)
        self._last_good = LastGood(replica_path) if last_good is None else last_good
        self._files = BlockingCalls("files")
        self._applications = applications
        self._access = Access()
        self._keys = ConfiguredKeys(self._access, ledger_client)
        self._log = ConfiguredLog(replica_id)
        self._recent = RecentAnswers()
        self._replicas = Replicas(self._own_metrics, router, self._experts_here)
        # Serve builds the app before it passes user_config: until then there is no API.
        self._api: Api | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def reconfigure(self, user_config: Any) -> None:
        """Put a new `user_config` into effect; an invalid one is rejected, and the last valid one stays.

        A replica that starts with an invalid one starts from the last valid one of this deployment.

        Raises:
            ValueError: there is no valid one yet, so this replica could serve nothing.
        """
        last = None if self._api is not None else last_config(await self._off_loop(self._last_good.load))
        keys_before = self._keys.settings if last is None else last.config.keys
        config: IngressConfig | None = None
        ring: KeyRing | None = None
        try:
            config = validated(user_config, keys_before)
            ring = await self._keys.read(config.keys)
            if ring is not None and not ring.is_read:
                raise ConfigRejectedError(f"user_config.keys: {ring.error}")
        except ConfigRejectedError as error:
            logger.error("configuration of the ingress rejected: %s", error)
            if self._api is not None:
                self._api.reject(str(error))
            elif last is not None and may_replace(last, user_config, config):
                api = await self._put_into_effect(last.config, await self._keys.read(last.config.keys))
                metrics.config_restored.labels("Ingress").set(1)
                api.reject(f"{error}; the last valid configuration, saved at {last.saved_at}, is in effect")
                logger.error("started with the configuration saved at %s", last.saved_at)
            elif config is not None:
                # Only its key file is missing: no client is served until the file can be read.
                await self._put_into_effect(config, ring)
            else:
                raise
            return
        await self._put_into_effect(config, ring)
        metrics.config_restored.labels("Ingress").set(0)
        await self._off_loop(self._last_good.save, user_config)

    async def _put_into_effect(self, config: IngressConfig, ring: KeyRing | None) -> Api:
        replaced = self._log.apply(config.log)
        if replaced is not None:
            await self._off_loop(replaced.stop)
        await self._keys.apply(config.keys, ring)
        if self._api is not None:
            self._api.apply(config)
            return self._api
        if config.log is not None:
            await self._off_loop(_restore, self._recent, config.log)
        self._api = Api(
            self._args,
            config,
            self._router,
            client_for=expert_client,
            access=self._access,
            bodies=self.bodies,
            records=self._log,
            recent=self._recent,
            ask_others=self._replicas.recall,
            gather_metrics=self._replicas.metrics,
            gather_for_board=self._replicas.metrics_without_engines,
            tracer=tracing.tracer("to-router-ingress"),
            arms=ArmReports(_reporter, CoordinatorHandle(str(state_folder() / "canaries.json"))),
        )
        # What lives as long as the replica is no work for the collector, which large bodies call often.
        gc.collect()
        gc.freeze()
        discovery = Discovery(self._api.registry, self._router.describe, self._applications)
        self._tasks = [asyncio.create_task(discovery.run()), asyncio.create_task(self._keys.watch())]
        if self._args.page is not False:
            self._tasks.append(asyncio.create_task(self._api.board.keep_history()))
        return self._api

    async def _off_loop(self, function: Callable[..., T], *args: Any) -> T | None:
        """Read or write files; `None` where that takes too long, which the log reports."""
        try:
            return await self._files.run(function, *args, timeout_s=FILES_TIMEOUT_S)
        except TimeoutError:
            logger.error("%s took longer than %g s", function.__qualname__, FILES_TIMEOUT_S)
            return None

    async def exposition(self) -> tuple[str, bytes]:
        """Return this replica's name and metrics."""
        return self._own_metrics()

    async def recall(self, request_id: str) -> AnswerOrigin | None:
        """Return the origin of a response of this replica."""
        return self._recent.recall(request_id)

    def _own_metrics(self) -> tuple[str, bytes]:
        return replica_name(), b"" if self._api is None else self._api.exposition()

    def _experts_here(self) -> dict[str, str]:
        """Experts with a replica in this cluster: their engines have metrics."""
        if self._api is None:
            return {}
        return {
            name: expert.target.app
            for name, expert in self._api.registry.engines().items()
            if expert.target.app is not None and expert.state.running
        }

    def __del__(self) -> None:
        """Write what the log still holds: Serve calls this when a replica ends in good order."""
        self._log.stop(1.0)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the ASGI app, before there is a configuration: it reads the API with each request."""
        not_configured = Starlette()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_once(message: Message) -> None:
                # Serve adds the request id to every response itself: it would be there twice.
                if message["type"] == "http.response.start":
                    kept = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                    message = {**message, "headers": kept}
                await send(message)

            current = not_configured if self._api is None else self._api.app
            await current(scope, receive, send_once)

        return app


def _restore(recent: RecentAnswers, settings: LogSettings) -> None:
    """Read from the log's files which responses this machine sent before."""
    try:
        recent.restore(origins_in_log(log_files(resolve(settings.folder))))
    except (OSError, NewerRecordError) as error:
        logger.warning("earlier responses are unknown, ratings of them will be rejected: %s", error)
