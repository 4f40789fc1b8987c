"""Cross-origin requests of browsers: off unless configured, and then with the ingress' headers readable."""

from collections.abc import Callable

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.config import CorsSettings

EXPOSED = [
    "x-request-id", "x-client-request-id", "x-router-expert", "x-router-policy", "x-router-score",
    "x-router-cost-usd", "x-router-attempts", "x-router-reason",
    "retry-after", "retry-after-ms", "x-should-retry",
]  # fmt: skip


class Cors:
    """Wraps an app; the settings may change while it runs."""

    def __init__(self, app: ASGIApp, settings: Callable[[], CorsSettings | None]) -> None:
        self._app = app
        self._settings = settings
        self._built: tuple[CorsSettings, ASGIApp] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._settings()
        if settings is None:
            await self._app(scope, receive, send)
            return
        if self._built is None or self._built[0] != settings:
            wrapped = CORSMiddleware(
                self._app,
                allow_origins=settings.origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=EXPOSED,
                max_age=3600,
            )
            self._built = (settings, wrapped)
        await self._built[1](scope, receive, send)
