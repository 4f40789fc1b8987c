"""Bytes pass untouched, in whole events; what breaks off says so and ends properly."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message, Send

from deployments.contracts.endpoints import ENDPOINTS, Kind
from deployments.contracts.errors import ExpertUnavailable
from deployments.contracts.messages import Head
from deployments.contracts.protocols import ResponseStream
from deployments.contracts.sse import DONE, StreamObserver
from deployments.ingress.relay import PIECE_BYTES, Relay
from tests.deployments.fakes import EVENTS, JSON, event

Pieces = Sequence[bytes | Exception]
BY_KIND = {endpoint.kind: endpoint for endpoint in ENDPOINTS.values()}
NEVER = b"what never comes"


async def relay(
    kind: Kind,
    *pieces: bytes | Exception,
    headers: Sequence[tuple[bytes, bytes]] = EVENTS,
    whole: bool = False,
    left_s: float = 60.0,
    idle_s: float = 60.0,
    send: Send | None = None,
    observers: list[StreamObserver] | None = None,
) -> tuple[list[Message], StreamObserver]:
    sent: list[Message] = []
    told: list[StreamObserver] = [] if observers is None else observers

    async def rest() -> AsyncGenerator[bytes, None]:
        for piece in pieces[1:]:
            if isinstance(piece, Exception):
                raise piece
            if piece == NEVER:
                await asyncio.Event().wait()
            yield piece

    async def keep(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    first = pieces[0]
    assert isinstance(first, bytes)
    stream = ResponseStream(Head(200, tuple(headers), first, complete=whole), rest())
    answer = Relay(
        stream,
        {"x-router-expert": "a"},
        endpoint=BY_KIND[kind],
        left_s=lambda: left_s,
        idle_s=idle_s,
        finished=told.append,
    )
    await answer({}, receive, keep if send is None else send)
    return sent, told[0]


def body(sent: list[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in sent[1:])


def cut_into(data: bytes, at: Sequence[int]) -> list[bytes]:
    slots = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[a:b] for a, b in itertools.pairwise(slots)]


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(st.text(max_size=30), max_size=8),
    at=st.lists(st.integers(0, 10_000), max_size=12),
    crlf=st.booleans(),
)
def test_a_stream_passes_byte_for_byte_however_it_is_cut(texts: list[str], at: list[int], crlf: bool) -> None:
    data = b"".join(event("a", text) for text in texts) + DONE
    data = data.replace(b"\n", b"\r\n") if crlf else data
    sent, told = asyncio.run(relay("chat", *cut_into(data, at)))

    assert body(sent) == data
    assert told.outcome == "complete"
    assert sent[-1]["more_body"] is False


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(st.text(max_size=30), min_size=1, max_size=8),
    at=st.lists(st.integers(0, 10_000), max_size=12),
    end=st.integers(1, 10_000),
    raises=st.booleans(),
)
def test_wherever_a_stream_breaks_off_the_client_reads_whole_events_one_error_and_done(
    texts: list[str], at: list[int], end: int, raises: bool
) -> None:
    data = b"".join(event("a", text) for text in texts)
    data = data[: 1 + end % len(data)]
    pieces: list[bytes | Exception] = [*cut_into(data, at)]
    sent, told = asyncio.run(relay("chat", *pieces, *([ExpertUnavailable("a", "x")] if raises else [])))

    assert told.outcome == "broken"
    *events, error, done, rest = body(sent).split(b"\n\n")
    assert done == b"data: [DONE]"
    assert rest == b""
    assert orjson.loads(error.removeprefix(b"data: "))["error"]["code"] == "stream_interrupted"
    if raises:
        assert all(orjson.loads(one.removeprefix(b"data: "))["choices"] for one in events)


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("messages", b'event: message_stop\ndata: {"type": "message_stop"}\n\n'),
        ("responses", b'event: response.completed\ndata: {"response": {"usage": {}}}\n\n'),
        ("responses", b"event: response.incomplete\ndata: {}\n\n"),
        ("chat", DONE),
        ("completions", DONE),
    ],
)
async def test_each_endpoints_own_last_event_ends_a_stream(kind: Kind, last: bytes) -> None:
    complete, told = await relay(kind, b"data: {}\n\n", last)
    _, broken = await relay(kind, b"data: {}\n\n", b"data: {}\n\n")

    assert body(complete) == b"data: {}\n\n" + last
    assert (told.outcome, broken.outcome) == ("complete", "broken")


async def test_only_headers_of_the_answer_are_handed_on() -> None:
    theirs = [
        *JSON, (b"Set-Cookie", b"a=b"), (b"x-router-score", b"1"), (b"Access-Control-Allow-Origin", b"*"),
        (b"transfer-encoding", b"chunked"), (b"content-length", b"999"), (b"openai-version", b"1"),
        (b"refresh", b"0;url=https://evil.example"), (b"location", b"/"), (b"openai-organization", b"acme"),
    ]  # fmt: skip
    sent, _ = await relay("chat", b"{}", headers=theirs, whole=True)

    assert dict(sent[0]["headers"]) == {
        b"content-type": b"application/json",
        b"x-content-type-options": b"nosniff",
        b"openai-version": b"1",
        b"x-router-expert": b"a",
        b"content-length": b"2",
    }


async def test_usage_is_read_of_both_forms_of_a_response() -> None:
    usage = b'{"usage": {"prompt_tokens": 3, "completion_tokens": 5}, "padding": "' + b"x" * 50_000 + b'"}'
    _, whole = await relay("chat", usage, whole=True, headers=JSON)
    last = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}\n\n'
    _, streamed = await relay("chat", event("a", "x"), last, DONE)
    message = b'data: {"type": "message_delta", "usage": {"input_tokens": 3, "output_tokens": 5}}\n\n'
    _, anthropic = await relay("messages", message, b"event: message_stop\ndata: {}\n\n")

    assert whole.usage() == streamed.usage() == anthropic.usage() == (3, 5)


async def test_an_event_without_end_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.ingress.relay.MOST_HELD_BYTES", 100)
    sent, _ = await relay("chat", b"data: " + b"x" * 90, b"y" * 90, b"z" * 90, b"\n\n", DONE)

    assert max(len(message.get("body", b"")) for message in sent[1:]) < 200


async def test_a_stream_that_outlasts_the_deadline_says_so_and_ends_properly() -> None:
    sent, told = await relay("chat", event("a", "x"), event("a", "y"), NEVER, left_s=0.05)

    first, second, error, done, rest = body(sent).split(b"\n\n")
    assert (first + b"\n\n", second + b"\n\n") == (event("a", "x"), event("a", "y"))
    assert orjson.loads(error.removeprefix(b"data: "))["error"]["code"] == "deadline_exceeded"
    assert (done, rest) == (b"data: [DONE]", b"")
    assert told.outcome == "broken"


async def test_a_stream_that_stalls_breaks_off_and_counts_as_a_failure() -> None:
    sent, seen = await relay("chat", event("a", "x"), NEVER, idle_s=0.01)
    late, in_time = await relay("chat", event("a", "x"), NEVER, left_s=0.01, idle_s=60)

    assert b"stream_interrupted" in body(sent)
    assert body(sent).endswith(DONE)
    assert (seen.outcome, seen.failed) == ("broken", True)
    assert b"deadline_exceeded" in body(late)
    assert not in_time.failed


async def test_a_client_that_reads_slowly_is_no_stall_of_the_expert() -> None:
    ticks: list[Message] = []

    async def send(message: Message) -> None:
        await asyncio.sleep(0.01)
        ticks.append(message)

    _, seen = await relay("chat", event("a", "x"), event("a", "y"), DONE, idle_s=0.005, send=send)

    assert seen.outcome == "complete"


async def test_a_stream_is_closed_after_its_last_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.ingress.relay.END_S", 0.01)
    sent, seen = await relay("chat", event("a", "x"), DONE, NEVER)

    assert body(sent) == event("a", "x") + DONE
    assert sent[-1]["more_body"] is False
    assert seen.outcome == "complete"


async def test_an_expert_that_fails_after_the_last_event_did_not_fail() -> None:
    sent, seen = await relay("chat", event("a", "x"), DONE, ExpertUnavailable("a", "gone"))

    assert body(sent) == event("a", "x") + DONE
    assert (seen.outcome, seen.failed) == ("complete", False)


async def test_a_client_that_leaves_with_the_last_event_got_all_of_it() -> None:
    async def send(message: Message) -> None:
        if DONE in message.get("body", b""):
            raise ConnectionResetError

    seen: list[StreamObserver] = []
    with pytest.raises(ConnectionResetError):
        await relay("chat", event("a", "x"), DONE, send=send, observers=seen)

    assert seen[0].outcome == "complete"


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
async def test_a_long_body_leaves_in_pieces(size: int) -> None:
    sent, seen = await relay("chat", b"x" * size, whole=True, headers=JSON)
    *pieces, last = sent[1:]

    assert len(body(sent)) == size
    assert all(len(message["body"]) <= PIECE_BYTES for message in sent[1:])
    assert all(piece["more_body"] for piece in pieces)
    assert not last["more_body"]
    assert seen.outcome == "complete"


async def test_a_body_that_is_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.ingress.relay.MIN_SEND_S", 0.01)
    seen: list[StreamObserver] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    await relay("chat", b"{}", whole=True, headers=JSON, left_s=0, send=send, observers=seen)

    assert seen[0].outcome == "disconnected"


async def test_the_end_of_a_stream_that_is_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.ingress.relay.BREAK_OFF_S", 0.01)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    seen: list[StreamObserver] = []
    await relay("chat", event("a", "x"), NEVER, left_s=0.01, send=send, observers=seen)

    assert seen[0].outcome == "broken"


@pytest.mark.parametrize(
    "odd",
    [
        b'{"error": null, "choices": [{"delta": {"content": "a\xe2\x80\xa8b\xc2\x85"}}]}',
        b'{"choices": null, "usage": null}',
        b'{"choices": [null, "x", {"delta": null, "text": null}], "usage": []}',
        b'{"choices": {"0": {}}, "usage": "none"}',
        b'{"usage": {"prompt_tokens": null, "completion_tokens": "5"}}',
        b"[1, null]",
        b"null",
        b'"text"',
    ],
)
@pytest.mark.parametrize("kind", ["chat", "completions", "responses", "messages"])
async def test_odd_values_in_a_stream_pass_byte_for_byte(kind: Kind, odd: bytes) -> None:
    data = b"data: " + odd + b"\n\n"
    sent, seen = await relay(kind, event("a", "x"), data, DONE)

    assert body(sent) == event("a", "x") + data + DONE
    assert (seen.outcome, seen.failed) == ("complete", False)


async def test_a_stream_that_comes_in_one_piece_is_a_stream() -> None:
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}\n\n'
    sent, told = await relay("chat", event("a", "x") + usage + DONE, whole=True)
    _, broken = await relay("chat", event("a", "x") + usage, whole=True)

    assert body(sent) == event("a", "x") + usage + DONE
    assert told.usage() == broken.usage() == (3, 5)
    assert (told.outcome, broken.outcome) == ("complete", "broken")


async def test_a_deadline_after_the_last_event_changes_nothing() -> None:
    sent, told = await relay("chat", event("a", "x"), DONE, NEVER, left_s=0.05)

    assert body(sent) == event("a", "x") + DONE
    assert told.outcome == "complete"


async def test_no_response_of_an_expert_is_a_page() -> None:
    sent, _ = await relay("chat", b"{}", headers=[(b"Content-Type", b"text/html")], whole=True)

    assert (b"content-type", b"application/json") in sent[0]["headers"]
    assert (b"x-content-type-options", b"nosniff") in sent[0]["headers"]


async def test_reported_usage_is_clamped() -> None:
    usage = b'{"usage": {"prompt_tokens": -5, "completion_tokens": 99999999999999}}'
    _, seen = await relay("chat", usage, whole=True, headers=JSON)
    cached = b'{"usage": {"input_tokens": 3, "output_tokens": 1, "cache_read_input_tokens": -9}}'
    _, anthropic = await relay("messages", cached, whole=True, headers=JSON)

    assert seen.usage() == (0, 1_000_000_000)
    assert anthropic.usage() == (3, 1)
