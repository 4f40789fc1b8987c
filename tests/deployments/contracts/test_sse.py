"""Framing of events, the end of a stream, tokens counted and reported."""

import pytest

from deployments.contracts.endpoints import ENDPOINTS, Endpoint
from deployments.contracts.sse import DONE, StreamObserver, end_of_events, first_event, is_event_stream

CHAT = ENDPOINTS["/v1/chat/completions"]
RESPONSES = ENDPOINTS["/v1/responses"]


def observed(endpoint: Endpoint, *chunks: bytes) -> StreamObserver:
    observer = StreamObserver(endpoint, streamed=True)
    for chunk in chunks:
        observer.saw(chunk)
    return observer


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"", 0),
        (b"data: 1", 0),
        (b"data: 1\n\ndata", 9),
        (b"data: 1\r\n\r\ndata", 11),
        (b"a\n\nb\r\n\r\nc", 8),
    ],
)
def test_whole_events_end_at_the_last_blank_line(data: bytes, end: int) -> None:
    assert end_of_events(data) == end


@pytest.mark.parametrize(
    ("body", "event"),
    [
        (b"data: 1", None),
        (b": ping\n\ndata: 1\n\n", b"data: 1"),
        (b"\r\n\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n", b"data: 1"),
    ],
)
def test_the_first_event_is_the_first_with_content(body: bytes, event: bytes | None) -> None:
    assert first_event(body) == event


def test_a_stream_is_known_by_its_content_type() -> None:
    assert is_event_stream([(b"Content-Type", b"text/event-stream; charset=utf-8")])
    assert not is_event_stream([(b"content-type", b"application/json")])


def test_the_last_event_is_noticed_however_it_is_cut() -> None:
    for at in range(len(DONE)):
        assert observed(CHAT, DONE[:at], DONE[at:]).ended
    assert not observed(CHAT, b"data: [DON\n\n").ended


def test_tokens_are_counted_without_the_frames() -> None:
    stream = [b"data: {}\n\n"] * 4 + [DONE]

    assert observed(CHAT, *stream).tokens_counted() == 3
    assert observed(ENDPOINTS["/v1/completions"], *stream).tokens_counted() == 4
    assert StreamObserver(CHAT, streamed=False).tokens_counted() == 0


def test_usage_is_read_where_the_endpoint_reports_it() -> None:
    event = b'data: {"response": {"usage": {"input_tokens": 3, "output_tokens": 5}}}\n\n'

    assert observed(RESPONSES, event).usage() == (3, 5)
    assert observed(CHAT, event).usage() is None
    assert observed(CHAT, b"data: {half").usage() is None
