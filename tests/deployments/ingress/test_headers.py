"""Headers of requests and responses: what is read, forwarded and returned."""

import pytest
from starlette.requests import Request

from deployments.contracts.call_order import CallOrder
from deployments.contracts.messages import REPLICA_KEY, Head
from deployments.contracts.protocols import ResponseStream
from deployments.ingress import headers, request_ids
from deployments.limits.admission import AdmissionQueue
from deployments.upstream.attempts import Attempt, OpenedResponse
from router.core import Decision, ExpertView


def request(*pairs: tuple[bytes, bytes]) -> Request:
    return Request({"type": "http", "headers": list(pairs)})


def opened(expert: str) -> OpenedResponse:
    stream = ResponseStream(Head(200, (), b"", complete=True), rest=None)  # type: ignore[arg-type]
    slot = AdmissionQueue(1, max_queued=0, max_wait_s=1.0)
    return OpenedResponse(expert, stream, (Attempt(expert, "answered", 0.1),), 0.1, slot)


@pytest.mark.parametrize("value", [b"", b"x" * 129, b"a\tb", b"\xe9"])
def test_an_invalid_client_request_id_is_dropped(value: bytes) -> None:
    assert request_ids.client_request_id(request((b"x-request-id", value))) is None


def test_a_valid_client_request_id_is_read() -> None:
    assert request_ids.client_request_id(request((b"x-request-id", b"mine"))) == "mine"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"2.5", 2.5), (b"0", None), (b"-1", None), (b"nan", None), (b"inf", None), (b"x", None)],
)
def test_a_read_timeout_is_a_finite_number_above_zero(value: bytes, seconds: float | None) -> None:
    assert headers.read_timeout_s(request((b"x-stainless-read-timeout", value))) == seconds


@pytest.mark.parametrize(("value", "count"), [(b"2", 2), (b"1e9", 1000), (b"x", 0)])
def test_a_retry_count_is_bounded(value: bytes, count: int) -> None:
    assert headers.retries(request((b"x-stainless-retry-count", value))) == count


def test_an_expert_gets_neither_keys_nor_long_headers() -> None:
    sent = headers.forwarded(
        request((b"authorization", b"Bearer x"), (b"accept", b"*/*"), (b"anthropic-beta", b"x" * 513)),
        "id",
        {"traceparent": "00"},
    )

    assert dict(sent) == {
        b"accept": b"*/*",
        b"traceparent": b"00",
        b"content-type": b"application/json",
        b"x-request-id": b"id",
    }


def test_a_replica_key_goes_to_the_expert() -> None:
    assert (REPLICA_KEY, b"k") in headers.forwarded(request(), "id", {}, b"k")


def test_score_and_cost_are_returned_only_for_a_scored_expert() -> None:
    scored, unscored = ExpertView(0.5, 2e-7, None, eligible=True), ExpertView(None, None, None, eligible=True)
    decision = Decision(("a", "b"), {"a": scored, "b": unscored}, "0123456789ab")
    order = CallOrder(("a", "b"), "routed", True, decision)
    first = headers.of_response(order, opened("a"), "id")

    assert (first["x-router-score"], first["x-router-cost-usd"]) == ("0.5000", "0.0000002")
    assert first["x-router-reason"] == "routed"
    second = headers.of_response(order, opened("b"), "id")
    assert "x-router-score" not in second
    assert (second["x-router-reason"], second["x-router-policy"]) == ("fallback_expert", "0123456789ab")
