"""Requests of web pages elsewhere, while no key is required: rejected before anything reads them.

A page of any site can send requests to a server on its visitor's machine or network, and after DNS
rebinding read the responses. A client that is no browser is rejected here for a public host name only.
"""

import ipaddress
from collections.abc import Callable
from functools import lru_cache

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.config import IngressConfig
from deployments.contracts.errors import ApiError, ErrorCode, NotAllowed, UnsupportedMedia
from deployments.ingress.error_handlers import ErrorBody
from deployments.ingress.request_ids import request_id

LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".svc")
"""Ends of names that no stranger can register, so that no rebinding uses them."""
SAME_SITE = frozenset({"same-origin", "none"})
"""Values of `Sec-Fetch-Site` for requests of the ingress' own page, or of its visitor."""


class BrowserGuard:
    """Wraps an app; keys and settings may change while it runs.

    Args:
        app: the app.
        keys_required: returns whether requests need a key.
        config: returns the configuration in effect.
    """

    def __init__(
        self, app: ASGIApp, keys_required: Callable[[], bool], config: Callable[[], IngressConfig]
    ) -> None:
        self._app, self._keys_required, self._config = app, keys_required, config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._keys_required():
            request = Request(scope)
            if (error := rejection(request, self._config())) is not None:
                response = ErrorBody(error, {"x-request-id": request_id(request)})
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def rejection(request: Request, config: IngressConfig) -> ApiError | None:
    """Why a request without a key is rejected; `None` where it is not."""
    headers = request.headers
    host = headers.get("host", "")
    if not (config.allow_anonymous or is_local(host)):
        return NotAllowed(
            f"the host {host[:128]!r} is not served without keys: use an address, or set `keys`, or "
            "`allow_anonymous: true`",
            ErrorCode.HOST_NOT_ALLOWED,
        )
    origin = headers.get("origin")
    allowed = config.cors is not None and not {"*", origin}.isdisjoint(config.cors.origins)
    foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
    cross_site = headers.get("sec-fetch-site", "none") not in SAME_SITE
    # A link to the page from elsewhere is a visit; the other site cannot read it.
    visit = request.method in {"GET", "HEAD"} and headers.get("sec-fetch-mode") == "navigate"
    if (foreign or cross_site) and not (allowed or visit):
        return NotAllowed(
            "a page of another site sent this request: list its origin in `cors.origins`",
            ErrorCode.CROSS_SITE_REQUEST,
        )
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    # `curl -d` says that it sends a form; only a browser's word for a body is held against it.
    of_a_browser = origin is not None or "sec-fetch-site" in headers
    json = not kind or kind == "application/json" or kind.endswith("+json")
    if request.method == "POST" and of_a_browser and not json:
        return UnsupportedMedia(f"the content type must be application/json, found {kind[:64]!r}")
    return None


@lru_cache(maxsize=32)
def is_local(host: str) -> bool:
    """Whether a `Host` header has an address or a name that only the own network resolves."""
    name = host.strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(LOCAL_SUFFIXES)
    return True
