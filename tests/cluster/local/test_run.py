"""Starting the graph on this machine: ports, flags, readiness, and a configuration that is refused."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from cluster.local import run


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


def test_the_fast_transport_is_read_from_its_one_file() -> None:
    flags = run.transport_flags()

    assert flags["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert not [name for name in flags if name.startswith("#")]


def test_two_runs_on_one_machine_keep_their_sockets_and_ports_apart(tmp_path: Path) -> None:
    first = run.environment(8000, tmp_path / "a", fast=True)
    second = run.environment(8010, tmp_path / "b", fast=True)
    shared = {*run.transport_flags(), "RAY_SERVE_HAPROXY_BINARY_PATH"}
    ours = [name for name in first if name.startswith("RAY_SERVE_HAPROXY") and name not in shared]

    assert first["RAY_SERVE_HAPROXY_STATS_PORT"] == "8404"
    assert all(first[name] != second[name] for name in ours)
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in run.environment(8000, tmp_path, fast=False)


def test_the_port_is_changed_in_a_copy(tmp_path: Path) -> None:
    given = run.ROOT / "serve_config.yaml"
    same, port = run.with_port(given, None, tmp_path)
    other, changed = run.with_port(given, 9000, tmp_path)

    assert (same, port) == (given, 8000)
    assert changed == 9000
    assert yaml.safe_load(other.read_text())["http_options"] == {"host": "127.0.0.1", "port": 9000}


def test_the_address_is_changed_where_a_container_needs_it(tmp_path: Path) -> None:
    given, everywhere = run.ROOT / "serve_config.yaml", "0.0.0.0"  # noqa: S104 - only written to a file
    changed, port = run.with_port(given, None, tmp_path, host=everywhere)

    assert port == 8000
    assert yaml.safe_load(changed.read_text())["http_options"] == {"host": everywhere, "port": 8000}


def test_it_waits_until_every_part_is_ready(door: tuple[str, list[dict[str, object]]]) -> None:
    url, said = door
    waiting = {
        "ready": False,
        "parts": {"router": {"ready": True, "why": ""}, "words": {"ready": False, "why": "x"}},
    }
    said[:] = [waiting, {"ready": True, "parts": {"words": {"ready": True, "why": ""}}}]
    told: list[str] = []

    assert run.wait_until_ready(url, lambda: True, told.append)
    assert "waiting for words" in told[0]


def test_it_stops_waiting_when_the_process_ended() -> None:
    assert not run.wait_until_ready("http://127.0.0.1:9", lambda: False, lambda line: None)


def test_a_wrong_key_ends_it_with_2_and_the_keys_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = yaml.safe_load((run.ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    data["applications"][0]["args"]["router"]["max_batch"] = 3
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")

    assert run.main(["--config", str(file)]) == 2
    assert "to-router.args.router.max_batch: unknown key" in capsys.readouterr().err
