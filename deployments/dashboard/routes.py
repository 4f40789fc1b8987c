"""Routes of the page, and the access to them: three documents, their files, and their data.

The documents hold no data, so they need no key; the data needs one, where keys are on.
Knows nothing of how the data is made.
"""

import gzip
import hashlib
import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from deployments.config import PageWhen
from deployments.contracts.errors import ErrorCode, NotAllowed, NotFound
from deployments.dashboard.policy_card import PolicyCard
from deployments.dashboard.snapshot import MetricsSnapshots
from deployments.limits.keys import Caller

STATIC = Path(__file__).parent / "static"
VENDOR = STATIC / "vendor"
"""Libraries of others, unchanged; its README.md has their origin, licences and hashes."""
FRAME = "frame.html"
"""Header, navigation and key dialog around the content of each document."""
DOCUMENTS = {"/": "ask.html", "/board": "board.html", "/policy": "policy.html"}
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types dompurify"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""Headers of every response of the page: text that entered as HTML could neither run nor load anything."""
NO_STORE = {"cache-control": "no-store"}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """Content and headers of one file."""

    kind: str
    body: bytes
    zipped: bytes
    etag: str


@cache
def static_files() -> dict[str, StaticFile]:
    """Each file of the page by name, documents in their frame, compressed once."""
    files = {}
    for path in sorted((*STATIC.iterdir(), *VENDOR.iterdir())):
        if path.suffix in KINDS and path.name != FRAME:
            body = _document(path) if path.name in DOCUMENTS.values() else path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            name = path.relative_to(STATIC).as_posix()
            files[name] = StaticFile(KINDS[path.suffix], body, gzip.compress(body, 9, mtime=0), etag)
    return files


def _document(content: Path) -> bytes:
    """Content of one document in the frame, its link in the navigation marked as current."""
    frame = (STATIC / FRAME).read_text(encoding="utf-8")
    return (
        frame.replace("<!-- main -->", content.read_text(encoding="utf-8").strip())
        .replace("<!-- title -->", content.stem.capitalize())
        .replace("<!-- page -->", content.stem)
        .replace(f'data-page="{content.stem}"', 'aria-current="page"')
        .encode()
    )


def is_loopback(host: str) -> bool:
    """Whether a `Host` header names the machine itself, as a browser on it would."""
    name = host.strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class DashboardRoutes:
    """Handlers of the page.

    Args:
        when: whether there is a page: `True`, `False`, or only for requests addressed to loopback.
        board: the data of Board.
        card: the data of Policy, and the prices for Ask.
        caller: returns the key of a request, `None` where keys are off; raises where a key is missing.
    """

    def __init__(
        self,
        when: PageWhen,
        board: MetricsSnapshots,
        card: PolicyCard,
        caller: Callable[[Request], Caller | None],
    ) -> None:
        self._when = when
        self._board = board
        self._card = card
        self._caller = caller

    def routes(self) -> list[Route]:
        """The page's routes; none where the page is off."""
        if self._when is False:
            return []
        return [
            *(Route(path, partial(self.document, path), methods=["GET"]) for path in DOCUMENTS),
            Route("/page/data/ask", self.ask_data, methods=["GET"]),
            Route("/page/data/board", self.board_data, methods=["GET"]),
            Route("/page/data/policy", self.policy_data, methods=["GET"]),
            Route("/page/{name:path}", self.file, methods=["GET"]),
            _BarePrefix(self.slash),
        ]

    async def slash(self, request: Request) -> Response:
        """Redirect the bare route prefix to Ask, whose links are relative to the prefix with its slash."""
        self._admit(request)
        last = request.scope["path"].rpartition("/")[2]
        return Response(status_code=307, headers={**SECURITY, **NO_STORE, "location": f"{quote(last)}/"})

    async def document(self, path: str, request: Request) -> Response:
        """Respond with one of the three documents."""
        self._admit(request)
        return _file_response(request, static_files()[DOCUMENTS[path]])

    async def file(self, request: Request) -> Response:
        """Respond with a script, a style sheet or the icon.

        Raises:
            NotFound: the page has no file of this name.
        """
        self._admit(request)
        file = static_files().get(request.path_params["name"])
        if file is None:
            raise NotFound(f"the page has no file {request.path_params['name'][:128]!r}")
        return _file_response(request, file)

    async def ask_data(self, request: Request) -> Response:
        """Respond with prices and the default preference, for the experts that the caller may use."""
        self._admit(request)
        caller = self._caller(request)
        return _json_response(self._card.prices(None if caller is None else caller.experts))

    async def board_data(self, request: Request) -> Response:
        """Respond with the metrics of the whole application, at most one second old.

        With `?history=1` also with their history, for a board that was just opened.
        """
        self._whole_view(request)
        wants_history = request.query_params.get("history") == "1"
        snapshot = await (self._board.with_history() if wants_history else self._board.snapshot())
        zipped = _accepts_gzip(request)
        headers = {**SECURITY, **NO_STORE, "vary": "accept-encoding"}
        if zipped:
            headers["content-encoding"] = "gzip"
        body = snapshot.zipped if zipped else snapshot.plain
        return Response(body, media_type="application/json", headers=headers)

    async def policy_data(self, request: Request) -> Response:
        """Respond with the card of the policy in effect."""
        self._whole_view(request)
        return _json_response(await self._card.read())

    def _admit(self, request: Request) -> None:
        if self._when == "loopback" and not is_loopback(request.headers.get("host", "")):
            raise NotFound(
                "the page is shown on loopback only; args.ingress.page: true shows it on every address"
            )

    def _whole_view(self, request: Request) -> None:
        """Board and Policy show every expert, so a key for some of them cannot see these parts."""
        self._admit(request)
        caller = self._caller(request)
        if caller is not None and caller.experts is not None:
            raise NotAllowed(
                "Board and Policy show every expert; this key may use only some", ErrorCode.PAGE_NOT_ALLOWED
            )


class _BarePrefix(Route):
    """The route prefix of the application itself, such as `/models`, without a slash after it."""

    def __init__(self, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__("/", endpoint, methods=["GET"])

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or not scope["path"] or scope["path"] != scope.get("root_path", ""):
            return Match.NONE, {}
        found = Match.FULL if scope["method"] in ("GET", "HEAD") else Match.PARTIAL
        return found, {"endpoint": self.endpoint, "path_params": {}}


def _file_response(request: Request, file: StaticFile) -> Response:
    headers = {**SECURITY, "etag": file.etag, "cache-control": "no-cache", "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    headers["content-type"] = file.kind
    if _accepts_gzip(request):
        return Response(file.zipped, headers={**headers, "content-encoding": "gzip"})
    return Response(file.body, headers=headers)


def _json_response(content: dict[str, Any]) -> Response:
    """JSON by orjson, which writes `null` where a report holds NaN; Starlette's own response would fail."""
    headers = {**SECURITY, **NO_STORE}
    return Response(orjson.dumps(content), media_type="application/json", headers=headers)


def _accepts_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "").lower()
