"""Readiness: what `/ready` reports is waited for and printed."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from cluster.local.readiness import wait_until_ready


@pytest.fixture
def door() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """A server whose `/ready` answers what the list says, one after the other; the last for good."""
    said: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(said[0]).encode()
            ready = said[0].get("ready")
            if len(said) > 1:
                said.pop(0)
            self.send_response(200 if ready else 503)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", said
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_waits_until_every_part_is_ready(door: tuple[str, list[dict[str, object]]]) -> None:
    url, said = door
    waiting = {
        "ready": False,
        "parts": {"router": {"ready": True, "why": ""}, "words": {"ready": False, "why": "x"}},
    }
    said[:] = [waiting, {"ready": True, "parts": {"words": {"ready": True, "why": ""}}}]
    told: list[str] = []

    assert wait_until_ready(url, lambda: True, told.append)
    assert "waiting for words" in told[0]


def test_it_stops_waiting_when_the_process_ended() -> None:
    assert not wait_until_ready("http://127.0.0.1:9", lambda: False, lambda line: None)
