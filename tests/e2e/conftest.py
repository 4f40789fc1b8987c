"""The real application, once for all end-to-end tests: real Ray, four real vLLM engines."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
import yaml

from cluster.local.readiness import wait_until_ready
from cluster.local.run import ROOT, serving


@dataclass(frozen=True, slots=True)
class Application:
    """A running graph."""

    url: str
    pid: int
    log: Path
    config: Path
    """The configuration that it was started with, apart from the port."""

    def client(self, **options: object) -> openai.OpenAI:
        """The real openai client, without retries unless a test wants them."""
        settings = {
            "base_url": f"{self.url}/v1",
            "api_key": "none",
            "max_retries": 0,
            "timeout": 60.0,
            **options,
        }
        return openai.OpenAI(**settings)  # type: ignore[arg-type]


def patient(folder: Path) -> Path:
    """serve_config.yaml with a router deadline that a busy machine meets; one engine takes adapters."""
    data = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    data["applications"][0]["args"]["ingress"]["router_deadline_ms"] = 10_000
    words = next(app for app in data["applications"] if app["name"] == "expert-words")
    words["args"]["engine"] = {**words["args"]["engine"], "max_loras": 2, "max_lora_rank": 8}
    file = folder / "serve_config.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return file


def free_port() -> int:
    """A port on which no process listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_to_serve_on() -> int:
    """A port below those of outgoing connections, like the others of the fast transport."""
    return free_port() % 8000 + 20000


@pytest.fixture(scope="session")
def application(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Application]:
    fast = request.config.getoption("--transport") == "fast"
    folder = tmp_path_factory.mktemp("serve")
    log, config = folder / "serve.log", patient(folder)
    with serving(config, port=port_to_serve_on(), fast=fast, log=log) as (url, process):
        if not wait_until_ready(url, lambda: process.poll() is None, print):
            pytest.fail("the application is not ready:\n" + log.read_text(errors="replace")[-6000:])
        yield Application(url, process.pid, log, config)


@pytest.fixture
def client(application: Application) -> Iterator[openai.OpenAI]:
    with application.client() as opened:
        yield opened
