"""Serve deployment of the ingress: builds the API at the first configuration, and follows later ones."""

import asyncio
import logging
from typing import Any
from uuid import uuid4

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.config import IngressArgs, IngressConfig, KeysSettings, LogSettings
from deployments.ingress.access import Access
from deployments.ingress.api import Api
from deployments.limits.keys import KeyRing
from deployments.limits.ledger_client import LedgerClient
from deployments.limits.ray_ledger import LedgerHandle
from deployments.observability import tracing
from deployments.observability.broadcast import Replicas
from deployments.observability.decision_log import ConfiguredLog, log_files
from deployments.observability.decision_record import NewerRecordError
from deployments.observability.recent_answers import AnswerOrigin, RecentAnswers, origins_in_log
from deployments.replica import replica_id, replica_name
from deployments.routing.client import RouterClient
from deployments.settings import resolve
from deployments.upstream.discovery import Discovery
from deployments.upstream.serve_client import expert_client
from router.validation import explain

logger = logging.getLogger("ray.serve")

KEYS_S = 0.5
"""Interval of looking at the key file."""


class Ingress:
    """One replica of the ingress.

    Args:
        args: shape of the deployment.
        router: handle of the router deployment.
    """

    def __init__(self, args: IngressArgs, router: Any) -> None:
        self._args = args
        self._router = RouterClient(router)
        self._access = Access()
        self._log = ConfiguredLog(replica_id)
        self._recent = RecentAnswers()
        self._replicas = Replicas(self._own_metrics, router, self._experts_here)
        # Serve builds the app before it passes user_config: until then there is no API.
        self._api: Api | None = None
        self._keys: KeysSettings | None = None
        self._ledger: LedgerClient | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def max_body_bytes(self) -> int:
        """The largest request body, for the middleware around Serve's HTTP server in this process."""
        return self._args.max_body_bytes

    async def reconfigure(self, user_config: Any) -> None:
        """Put a new `user_config` into effect; an invalid one is rejected, and the last valid one stays.

        Raises:
            ValueError: there is no valid one yet, so this replica could serve nothing.
        """
        try:
            config = IngressConfig.model_validate(user_config or {})
        except ValidationError as error:
            why = explain(error, "user_config")
            logger.error("configuration of the ingress rejected: %s", why)
            if self._api is None:
                raise ValueError(why) from error
            self._api.reject(why)
            return
        replaced = self._log.apply(config.log)
        if replaced is not None:
            await asyncio.to_thread(replaced.stop)
        await self._use_keys(config.keys)
        if self._api is not None:
            self._api.apply(config)
            return
        if config.log is not None:
            await asyncio.to_thread(_restore, self._recent, config.log)
        self._api = Api(
            self._args,
            config,
            self._router,
            client_for=expert_client,
            access=self._access,
            records=self._log,
            recent=self._recent,
            ask_others=self._replicas.recall,
            gather_metrics=self._replicas.metrics,
            tracer=tracing.tracer("to-router-ingress"),
        )
        discovery = Discovery(self._api.registry, self._router.describe)
        self._tasks = [asyncio.create_task(discovery.run()), asyncio.create_task(self._watch_keys())]

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
            for name, expert in self._api.registry.experts.items()
            if expert.target.app is not None and expert.state.running
        }

    async def _use_keys(self, settings: KeysSettings | None) -> None:
        """Require keys as configured, and count what they use in the common ledger."""
        if settings == self._keys:
            return
        self._keys = settings
        if self._ledger is not None:
            await self._ledger.stop()
            self._ledger = None
        if settings is None:
            self._access.replace(None, None)
            return
        file = resolve(settings.file)
        counts = file.with_suffix(".counts.json") if settings.counts is None else resolve(settings.counts)
        keys = KeyRing(file)
        await asyncio.to_thread(keys.refresh)
        # A new client each time, with a name of its own: the ledger recognises late calls by their numbers.
        self._ledger = LedgerClient(f"{replica_id()}-{uuid4().hex[:8]}", LedgerHandle(str(counts)))
        self._access.replace(keys, self._ledger)
        self._ledger.start()

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

    async def _watch_keys(self) -> None:
        """Read a changed key file; in a task of its own, so that nothing delays a revocation."""
        while True:
            await asyncio.sleep(KEYS_S)
            await asyncio.to_thread(self._access.refresh)


def _restore(recent: RecentAnswers, settings: LogSettings) -> None:
    """Read from the log's files which responses this machine sent before."""
    try:
        recent.restore(origins_in_log(log_files(resolve(settings.folder))))
    except (OSError, NewerRecordError) as error:
        logger.warning("earlier responses are unknown, ratings of them will be rejected: %s", error)
