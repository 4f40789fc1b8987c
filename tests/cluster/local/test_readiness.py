"""Readiness of a graph, by `/ready`."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from cluster.local.readiness import readiness, wait_until_ready


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """A server whose `/ready` returns the states of a list, one after the other; the last one forever."""
    states: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(states[0]).encode()
            ready = states[0].get("ready")
            if len(states) > 1:
                states.pop(0)
            self.send_response(200 if ready else 503)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", states
    server.shutdown()
    thread.join()
    server.server_close()


def test_waiting_ends_when_every_part_is_ready(endpoint: tuple[str, list[dict[str, object]]]) -> None:
    url, states = endpoint
    waiting = {
        "ready": False,
        "parts": {"router": {"ready": True, "why": ""}, "words": {"ready": False, "why": "x"}},
    }
    states[:] = [waiting, {"ready": True, "parts": {"words": {"ready": True, "why": ""}}}]
    reports: list[str] = []

    assert wait_until_ready(url, lambda: True, reports.append)
    assert "waiting for words" in reports[0]


def test_waiting_ends_when_the_process_ended() -> None:
    assert not wait_until_ready("http://127.0.0.1:9", lambda: False, lambda line: None)


def test_readiness_has_the_reason_of_each_part(endpoint: tuple[str, list[dict[str, object]]]) -> None:
    url, states = endpoint
    parts = {"router": {"ready": True, "why": ""}, "words": {"ready": False, "why": ""}}
    states[:] = [{"ready": False, "parts": parts}]

    assert readiness(url) == {"words": "not ready"}


def test_readiness_without_a_response_or_parts_is_unknown(
    endpoint: tuple[str, list[dict[str, object]]],
) -> None:
    url, states = endpoint
    states[:] = [{"ready": True}]

    assert readiness(url) is None
    assert readiness("http://127.0.0.1:9") is None


def test_waiting_ends_after_its_deadline() -> None:
    assert not wait_until_ready("http://127.0.0.1:9", lambda: True, lambda line: None, within_s=0.0)
