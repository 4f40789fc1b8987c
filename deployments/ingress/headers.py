"""Headers of requests and responses: those read from a client, sent to an expert, and returned.

Each value from a client is bounded and checked; an invalid one counts as absent and is no error.
"""

from starlette.requests import Request

from deployments.contracts.call_order import CallOrder
from deployments.contracts.messages import REPLICA_KEY, Headers, TraceContext
from deployments.ingress.request_ids import SESSION
from deployments.observability.tracing import CONTEXT_HEADERS
from deployments.upstream.attempts import OpenedResponse

FORWARDED = (b"accept", b"anthropic-version", b"anthropic-beta")
"""Request headers that reach an expert; a client's key never does."""
LONGEST_FORWARDED = 512
CONVERSATION_NAMES = (SESSION, "x-openwebui-chat-id")
"""Headers by which clients name a conversation."""


def trace_context(request: Request) -> TraceContext:
    """The W3C trace context of a request, as far as it is printable and short."""
    return {
        name.decode(): value.decode()
        for name, value in request.headers.raw
        if name.decode("latin-1") in CONTEXT_HEADERS and len(value) <= LONGEST_FORWARDED and _printable(value)
    }


def forwarded(request: Request, id_: str, trace: TraceContext, replica_key: bytes | None = None) -> Headers:
    """Headers of the request to an expert."""
    kept = [
        (name, value)
        for name, value in request.headers.raw
        if name in FORWARDED and len(value) <= LONGEST_FORWARDED and _printable(value)
    ]
    traced = [(name.encode(), value.encode()) for name, value in trace.items()]
    ours = [(b"content-type", b"application/json"), (b"x-request-id", id_.encode())]
    if replica_key is not None:
        ours.append((REPLICA_KEY, replica_key))
    return [*kept, *traced, *ours]


def conversation_name(request: Request) -> str | None:
    """What the client calls its conversation; `None` where it does not say."""
    values = (request.headers.get(name) for name in CONVERSATION_NAMES)
    return next((value for value in values if value and len(value) <= LONGEST_FORWARDED), None)


def read_timeout_s(request: Request) -> float | None:
    """The client's own read timeout, where its library sends it."""
    return _positive(request.headers.get("x-stainless-read-timeout"))


def retries(request: Request) -> int:
    """The client's retry count, where its library sends it; else 0."""
    count = _positive(request.headers.get("x-stainless-retry-count"))
    return 0 if count is None else int(min(count, 1000))


def of_response(order: CallOrder, opened: OpenedResponse, id_: str) -> dict[str, str]:
    """The response headers that TO-Router adds."""
    headers = {
        "x-router-expert": opened.expert,
        "x-router-attempts": str(len(opened.attempts)),
        "x-router-reason": order.reason_for(opened.expert),
        "x-request-id": id_,
    }
    if order.reason == "named":
        return headers
    if opened.plan is not None and opened.plan_name is not None:
        headers["x-router-plan"] = opened.plan_name
        headers["x-router-accepted"] = "true" if opened.plan.accepted else "false"
    if order.policy_id is not None:
        headers["x-router-policy"] = order.policy_id
    view = order.predicted(opened.expert, opened.plan_name)
    if view is not None and view.score is not None:
        headers["x-router-score"] = f"{view.score:.4f}"
        if view.cost_usd is not None:
            headers["x-router-cost-usd"] = f"{view.cost_usd:.12f}".rstrip("0").rstrip(".")
    return headers


def _printable(value: bytes) -> bool:
    return all(32 <= byte < 127 for byte in value)


def _positive(text: str | None) -> float | None:
    """A finite number above 0; `None` for anything else."""
    try:
        value = float(text) if text else 0.0
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
