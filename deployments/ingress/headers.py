"""Headers in and out: what a client may say in them, what an expert gets, what we answer with.

Whatever a client sends in a header is bounded and checked here; nothing in one is an error.
"""

import uuid

from starlette.requests import Request

from deployments.contracts.call_order import CallOrder
from deployments.contracts.messages import Headers, TraceContext
from deployments.observability.tracing import CONTEXT_HEADERS
from deployments.upstream.attempts import OpenedResponse

FORWARDED = (b"accept", b"anthropic-version", b"anthropic-beta")
"""Request headers that reach an expert; a client's key never does."""
LONGEST_FORWARDED = 512
LONGEST_REQUEST_ID = 128


def request_id(request: Request) -> str:
    """The client's own, where it is fit to be logged and sent back; else a new one."""
    given = request.headers.get("x-request-id", "")
    fit = 0 < len(given) <= LONGEST_REQUEST_ID and given.isascii() and given.isprintable()
    return given if fit else uuid.uuid4().hex


def trace_context(request: Request) -> TraceContext:
    """The W3C trace context that a client sent, as far as it is fit to be handed on."""
    return {
        name.decode(): value.decode()
        for name, value in request.headers.raw
        if name.decode("latin-1") in CONTEXT_HEADERS and len(value) <= LONGEST_FORWARDED and _printable(value)
    }


def forwarded(request: Request, id_: str, trace: TraceContext) -> Headers:
    """The headers of the request that an expert gets."""
    kept = [
        (name, value)
        for name, value in request.headers.raw
        if name in FORWARDED and len(value) <= LONGEST_FORWARDED and _printable(value)
    ]
    traced = [(name.encode(), value.encode()) for name, value in trace.items()]
    return [*kept, *traced, (b"content-type", b"application/json"), (b"x-request-id", id_.encode())]


def read_timeout_s(request: Request) -> float | None:
    """How long the client itself will wait, where it says so."""
    return _positive(request.headers.get("x-stainless-read-timeout"))


def retries(request: Request) -> int:
    """How often the client has tried this request before."""
    told = _positive(request.headers.get("x-stainless-retry-count"))
    return 0 if told is None else int(min(told, 1000))


def told(choice: CallOrder, opened: OpenedResponse, id_: str) -> dict[str, str]:
    """The response headers of the contract."""
    headers = {
        "x-router-expert": opened.expert,
        "x-router-attempts": str(len(opened.attempts)),
        "x-router-reason": choice.reason_for(opened.expert),
        "x-request-id": id_,
    }
    if choice.reason == "named":
        return headers
    if choice.policy_id is not None:
        headers["x-router-policy"] = choice.policy_id
    view = choice.views.get(opened.expert)
    if view is not None and view.score is not None:
        headers["x-router-score"] = f"{view.score:.4f}"
        if view.cost_usd is not None:
            headers["x-router-cost-usd"] = f"{view.cost_usd:.12f}".rstrip("0").rstrip(".")
    return headers


def _printable(value: bytes) -> bool:
    return all(32 <= byte < 127 for byte in value)


def _positive(text: str | None) -> float | None:
    """A number in a header; anything else is as good as absent."""
    try:
        value = float(text) if text else 0.0
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
