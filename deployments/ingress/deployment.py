"""The ingress deployment: a thin shell that puts `api` on Ray Serve and keeps its view fresh."""

import asyncio
import logging
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.config import IngressArgs, IngressConfig, KeysSettings, LogSettings
from deployments.ingress import middleware
from deployments.ingress.api import Api
from deployments.ingress.feedback import Answered, answered_before
from deployments.limits.keys import KeyRing
from deployments.limits.ledger_client import LedgerClient
from deployments.limits.ray_ledger import LedgerHandle
from deployments.observability import tracing
from deployments.observability.broadcast import Replicas
from deployments.observability.decision_log import DecisionLog, log_files
from deployments.replica import replica_id, replica_name
from deployments.routing.client import RouterClient
from deployments.settings import explain, resolve
from deployments.upstream.discovery import Discovery
from deployments.upstream.serve_client import expert_client

logger = logging.getLogger("ray.serve")

KEYS_S = 0.5


class Ingress:
    """One replica of the HTTP door."""

    def __init__(self, args: IngressArgs, router: Any) -> None:
        self._args = args
        middleware.bounds.body_bytes = int(args.max_body_mib * 1024 * 1024)
        self._router = RouterClient(router)
        self._api: Api | None = None
        # Serve asks for the app before it hands over user_config; until then there is only this.
        self._app: ASGIApp = Starlette()
        self._replicas = Replicas(self._own_metrics, router, self._experts_here)
        self._log: DecisionLog | None = None
        self._keys: KeysSettings | None = None
        self._refresher: asyncio.Task[None] | None = None
        self._key_watch: asyncio.Task[None] | None = None

    async def reconfigure(self, user_config: Any) -> None:
        """Take over a new `user_config`; a bad one is refused, and the last good one stays.

        Raises:
            ValueError: there is no good one yet, so this replica could answer nothing.
        """
        try:
            config = IngressConfig.model_validate(user_config or {})
        except ValidationError as error:
            why = explain(error, "user_config")
            logger.error("configuration of the ingress refused: %s", why)
            if self._api is None:
                raise ValueError(why) from error
            self._api.config_error = why
            return
        await self._use_log(config.log)
        if self._api is None:
            api = Api(
                self._args,
                config,
                self._router,
                client_for=expert_client,
                gather_metrics=self._replicas.metrics,
            )
            await self._use_keys(api, config.keys)
            api.knows_elsewhere = self._replicas.recall
            api.accounting.tracer = tracing.tracer("to-router-ingress")
            if self._log is not None:
                await asyncio.to_thread(_restore, api, resolve(self._log.settings.folder))
            self._api, self._app = api, api.app()
        else:
            await self._use_keys(self._api, config.keys)
            self._api.apply(config)
            self._api.config_error = None
        self._api.accounting.log = self._log
        if self._refresher is None:
            self._refresher = asyncio.create_task(Discovery(self._api.registry, self._router.describe).run())
            self._key_watch = asyncio.create_task(self._watch_keys())

    async def exposition(self) -> tuple[str, bytes]:
        """This replica's name and metrics."""
        return self._own_metrics()

    def _own_metrics(self) -> tuple[str, bytes]:
        return replica_name(), b"" if self._api is None else self._api.exposition()

    async def recall(self, request_id: str) -> Answered | None:
        """What this replica knows of an answered request."""
        return None if self._api is None else self._api.memory.recall(request_id)

    def _experts_here(self) -> dict[str, str]:
        """Experts with a replica in this cluster: those have engines to ask."""
        if self._api is None:
            return {}
        return {
            name: expert.target.app
            for name, expert in self._api.registry.experts.items()
            if expert.target.app is not None and expert.state.running
        }

    async def _use_log(self, settings: LogSettings | None) -> None:
        """Keep the decision log as configured."""
        if settings == (None if self._log is None else self._log.settings):
            return
        old, self._log = self._log, None
        if settings is not None:
            self._log = DecisionLog(settings, replica_id())
            self._log.start()
        if self._api is not None:
            self._api.accounting.log = self._log
        if old is not None:
            await asyncio.to_thread(old.stop)

    async def _use_keys(self, api: Api, settings: KeysSettings | None) -> None:
        """Ask for keys as configured, and count what they use in the common ledger."""
        if settings == self._keys:
            return
        self._keys = settings
        if api.ledger is not None:
            await api.ledger.stop()
        if settings is None:
            api.keys = api.ledger = None
            return
        file = resolve(settings.file)
        counts = file.with_suffix(".counts.json") if settings.counts is None else resolve(settings.counts)
        ring = KeyRing(file)
        await asyncio.to_thread(ring.refresh)
        # A client of its own each time: the ledger tells late calls by their numbers.
        replica = f"{replica_id()}-{uuid4().hex[:8]}"
        api.keys, api.ledger = ring, LedgerClient(replica, LedgerHandle(str(counts)))
        api.ledger.start()

    def __del__(self) -> None:
        """Serve calls it when a replica ends in good order: what the log still holds is written."""
        if self._log is not None:
            self._log.stop(1.0)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        async def current(scope: Scope, receive: Receive, send: Send) -> None:
            async def once(message: Message) -> None:
                # Serve puts the request id on every answer itself: ours would stand there twice.
                if message["type"] == "http.response.start":
                    kept = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                    message = {**message, "headers": kept}
                await send(message)

            await self._app(scope, receive, once)

        return current

    async def _watch_keys(self) -> None:
        """Take over a changed key file; apart from the rest, so that nothing delays a revocation."""
        while True:
            await asyncio.sleep(KEYS_S)
            if self._api is not None and self._api.keys is not None:
                await asyncio.to_thread(self._api.keys.refresh)


def _restore(api: Api, folder: Path) -> None:
    """Learn from the log's files which requests this machine answered before."""
    try:
        api.memory.restore(answered_before(log_files(folder)))
    except OSError as error:
        logger.warning("earlier answers are not known, ratings of them will be refused: %s", error)
