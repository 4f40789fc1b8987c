"""`canary keep`: a canary is kept only with proof, and the file changes only then."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from router.artifact import MANIFEST, policy_id
from router.cli import main

CONFIG = "a:\n  policy: old  # since June\n  canary: {policy: FOLDER, share: 0.1}\n"
OLD, NEW = b'{"old": 1}', b"{}"
"""Manifests of the two policies."""
STATES = ("waiting", "running", "rolled_back", "over")


class MetricsHandler(BaseHTTPRequestHandler):
    """The metrics of a graph."""

    text: ClassVar[str] = ""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()
        self.wfile.write(self.text.encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), MetricsHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for name, manifest in (("old", OLD), ("new", NEW)):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_bytes(manifest)
    file = tmp_path / "serve_config.yaml"
    file.write_text(CONFIG.replace("old", str(tmp_path / "old")).replace("FOLDER", str(tmp_path / "new")))
    return file


def metrics(
    state: str | None = "running",
    *gains: tuple[float, float, float],
    policy: str = policy_id(NEW),
    in_effect: str = policy_id(OLD),
) -> str:
    lines = ["# HELP to_router_canary A text.", "# TYPE to_router_canary gauge"]
    lines += [f'to_router_canary{{replica="r",state="{one}"}} {float(one == state)}' for one in STATES]
    lines += ["# HELP to_router_canary_gain A text.", "# TYPE to_router_canary_gain gauge"]
    lines += ["# HELP to_router_policy_info A text.", "# TYPE to_router_policy_info gauge"]
    lines += [f'to_router_policy_info{{replica="i",policy="{in_effect}"}} 1.0']
    for number, gain in enumerate(gains):
        for bound, value in zip(("estimate", "lower", "upper"), gain, strict=True):
            labels = f'replica="{number}",policy="{policy}",bound="{bound}"'
            lines.append(f"to_router_canary_gain{{{labels}}} {value}")
    return "\n".join(lines) + "\n"


def test_a_canary_that_proved_better_is_kept(
    url: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.chmod(0o640)
    MetricsHandler.text = metrics("running", (0.1, 0.02, 0.18), (0.12, 0.04, 0.2))
    code = main(["canary", "keep", str(config), "--url", url])

    out = capsys.readouterr().out
    assert code == 0
    assert config.read_text() == f"a:\n  policy: {config.parent / 'new'}  # since June\n"
    assert config.stat().st_mode & 0o777 == 0o640
    assert "it is proven better, quality +10.0 points (+2.0 to +18.0)" in out
    assert f"now run: serve deploy {config}" in out


def test_a_dry_run_shows_the_change_and_makes_none(
    url: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MetricsHandler.text, before = metrics("running", (0.1, 0.02, 0.18)), config.read_text()
    code = main(["canary", "keep", str(config), "--url", url, "--dry-run"])

    assert (code, config.read_text()) == (0, before)
    assert f"\n-  policy: {config.parent / 'old'}  # since June\n" in capsys.readouterr().out


@pytest.mark.parametrize("gains", [(), ((0.02, -0.01, 0.05),), ((0.1, 0.02, 0.18), (0.1, -0.2, 0.4))])
def test_a_canary_without_proof_is_not_kept(
    url: str, config: Path, gains: tuple[tuple[float, float, float], ...], capsys: pytest.CaptureFixture[str]
) -> None:
    MetricsHandler.text, before = metrics("running", *gains), config.read_text()
    code = main(["canary", "keep", str(config), "--url", url, "--json"])

    found = json.loads(capsys.readouterr().out)
    assert (code, config.read_text(), found["written"]) == (1, before, False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (metrics("rolled_back", (-0.1, -0.2, -0.01)), "is rolled back"),
        (metrics(None), "has no canary"),
        (metrics("running", (0.1, 0.02, 0.18), policy="0" * 12), "`serve deploy` first"),
        (
            metrics("running", (0.1, 0.02, 0.18), in_effect="0" * 12),
            "it against policy 000000000000",
        ),
        ("{", "not the metrics of a graph"),
    ],
)
def test_another_canary_than_the_files_is_an_error(
    url: str, config: Path, text: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    MetricsHandler.text, before = text, config.read_text()
    code = main(["canary", "keep", str(config), "--url", url])

    assert (code, config.read_text()) == (2, before)
    assert why in capsys.readouterr().err


def test_a_folder_is_found_from_the_root_as_by_the_graph(
    url: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(CONFIG.replace("FOLDER", "new"))
    MetricsHandler.text = metrics("running", (0.1, 0.02, 0.18))
    elsewhere = main(["canary", "keep", str(config), "--url", url])
    error = capsys.readouterr().err
    monkeypatch.setenv("TO_ROUTER_ROOT", str(config.parent))

    assert elsewhere == 2
    assert "set TO_ROUTER_ROOT" in error
    assert main(["canary", "keep", str(config), "--url", url]) == 0
    assert "policy: new" in config.read_text()


def test_without_a_graph_a_canary_is_kept_only_unproven(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["canary", "keep", str(config), "--url", "http://127.0.0.1:9"]

    assert main(arguments) == 2
    assert "add --unproven" in capsys.readouterr().err
    assert main([*arguments, "--unproven"]) == 0
    assert "canary:" not in config.read_text()
    assert "new: kept without proof\n" in capsys.readouterr().out
