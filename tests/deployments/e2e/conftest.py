"""The real graph on real Ray with simulated experts: two ingress replicas, a router, keys."""

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from cluster.local.readiness import wait_until_ready
from cluster.local.run import ROOT, SEVERAL_NODES, serving
from deployments.limits.keys import KeyFile, KeyLimits, KeyRecord, new_key, read_keys, write_keys
from tests.deployments.e2e.collector import Collector
from tests.e2e.conftest import port_to_serve_on

EXPERTS = ("arithmetic", "words", "atlas", "chat")
SLOTS = 8
SERVICE_S = 0.05
DISK_MIB = 64
MARK = "TO_ROUTER_TEST_RUN"


@dataclass(frozen=True, slots=True)
class Graph:
    """A running graph."""

    url: str
    process: subprocess.Popen[bytes]
    """`serve run`."""
    run: str
    """A mark in the environment of its processes, which those of other runs do not have."""
    log: Path
    keys: Path
    key: str
    """The key of a caller without limits."""
    decisions: Path
    """The decision log's folder."""
    small_disk: bool
    """Whether that folder is on a disk of its own, small enough to be filled."""
    spans: Collector

    def processes(self, title: str) -> list[psutil.Process]:
        """Workers of this run whose title contains the given words."""
        workers = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get(MARK) == self.run
                if ours and title in " ".join(process.cmdline()):
                    workers.append(process)
            except psutil.Error:
                continue
        return workers

    def kill_one(self, title: str) -> int:
        """Send SIGKILL to one of them; its process id."""
        process = self.processes(title)[0]
        process.kill()
        return process.pid

    def new_key(self, **limits: Any) -> tuple[str, str]:
        """A new key in effect, and its id."""
        key, record = new_key("test", limits=KeyLimits.model_validate(limits))
        file = read_keys(self.keys)
        write_keys(self.keys, KeyFile(keys=[*file.keys, record]))
        time.sleep(1.5)  # the ingress reads the file twice a second
        return key, record.id

    def revoke(self, key_id: str) -> None:
        """Revoke a key in the file, as the command does."""
        records = [
            record.model_copy(update={"revoked": "now"}) if record.id == key_id else record
            for record in read_keys(self.keys).keys
        ]
        write_keys(self.keys, KeyFile(keys=records))


def configuration(keys: Path, decisions: Path) -> dict[str, Any]:
    """The graph as a Serve config."""
    simulated = [
        {
            "name": f"expert-{name}",
            "route_prefix": None,
            "import_path": "deployments.app:build_simulated",
            "args": {
                "name": name,
                "behaviour": {
                    "ttft_ms": SERVICE_S * 1000,
                    "tokens_per_s": None,
                    "slots": SLOTS,
                    "echo": True,
                },
            },
            "deployments": [{"name": "Expert", "num_replicas": 1, "max_ongoing_requests": 1000}],
        }
        for name in EXPERTS
    ]
    ingress = {
        "name": "Ingress",
        "num_replicas": 2,
        "max_ongoing_requests": 10_000,
        "health_check_period_s": 2,
        "user_config": {
            "experts": {
                name: {"app": f"expert-{name}", "max_in_flight": SLOTS // 2, "context_window": 8192}
                for name in EXPERTS
            },
            "limits": {
                "first_token_timeout_s": 6,
                "stream_idle_timeout_s": 3,
                "max_queue_wait_s": 2,
                "max_in_flight": 256,
            },
            "keys": {"file": str(keys)},
            "log": {"folder": str(decisions), "queries": True, "max_mib": DISK_MIB * 3 // 4},
        },
    }
    router = {
        "name": "Router",
        "num_replicas": 1,
        "max_ongoing_requests": 10_000,
        "health_check_period_s": 2,
        "user_config": {"policy": "cluster/local/policy"},
    }
    application = {
        "name": "to-router",
        "route_prefix": "/",
        "import_path": "deployments.app:build_app",
        "args": {"ingress": {"router_deadline_ms": 150, "request_timeout_s": 20}},
        "deployments": [ingress, router],
    }
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "127.0.0.1", "port": 8000},
        "logging_config": {"encoding": "JSON", "enable_access_log": False},
        "applications": [application, *simulated],
    }


DISKS = Path(tempfile.gettempdir())
"""Not a folder of pytest's: it fails later runs if it cannot remove the disk that a killed run left there."""


@contextmanager
def small_disk() -> Iterator[Path | None]:
    """A disk in memory, where this user may mount one; what killed runs left mounted is removed first."""
    for left in DISKS.glob("to-router-disk-*-*"):
        owner = left.name.split("-")[3]
        # A folder with this process's id is of an earlier one that had it.
        if owner.isdecimal() and (int(owner) == os.getpid() or not psutil.pid_exists(int(owner))):
            subprocess.run(["umount", "--lazy", str(left)], check=False)
            with suppress(OSError):  # another user's
                left.rmdir()
    folder = Path(tempfile.mkdtemp(prefix=f"to-router-disk-{os.getpid()}-", dir=DISKS))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, check=False).returncode == 0
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


@pytest.fixture(scope="package")
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    folder = tmp_path_factory.mktemp("faults")
    with small_disk() as disk, running(request, folder, disk) as started:
        yield started


@contextmanager
def running(request: pytest.FixtureRequest, folder: Path, disk: Path | None) -> Iterator[Graph]:
    """The graph, ready; its decision log is on the small disk, where there is one."""
    keys, decisions = folder / "keys.json", (disk or folder) / "decisions"
    key, record = new_key("unlimited")
    write_keys(keys, KeyFile(keys=[record]))
    assert isinstance(record, KeyRecord)
    config = folder / "serve_config.yaml"
    config.write_text(yaml.safe_dump(configuration(keys, decisions)), encoding="utf-8")
    fast = request.config.getoption("--transport") == "fast"
    log = folder / "serve.log"
    run = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as monkey, Collector() as spans:
        monkey.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", spans.url)
        monkey.setenv("OTEL_BSP_SCHEDULE_DELAY", "500")
        monkey.setenv(MARK, run)  # before Ray starts: all its processes inherit it
        with serving(config, port=port_to_serve_on(), fast=fast, log=log) as (url, process):
            if not wait_until_ready(url, lambda: process.poll() is None, print):
                pytest.fail("the graph is not ready:\n" + log.read_text(errors="replace")[-6000:])
            yield Graph(url, process, run, log, keys, key, decisions, disk is not None, spans)


@dataclass(frozen=True, slots=True)
class Size:
    """The resources that one process uses."""

    resident_mib: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, process: psutil.Process) -> "Size":
        return cls(process.memory_info().rss / 2**20, process.num_fds(), process.num_threads())


TITLES = (
    "ServeReplica:to-router:Ingress",
    "ServeReplica:to-router:Router",
    *(f"ServeReplica:expert-{name}:Expert" for name in EXPERTS),
    "LedgerActor",
    "ServeController",
    "haproxy.cfg",
)
"""Titles of the processes that serve requests, count them or pass them on."""


def sizes(graph: Graph) -> dict[str, Size]:
    """The resources of each of these processes, by title."""
    return {
        f"{title} {process.pid}": Size.of(process) for title in TITLES for process in graph.processes(title)
    }


class Watch:
    """The load of the experts' engines, read every fifth of a second by a process of its own."""

    def __init__(self, experts: tuple[str, ...] = EXPERTS) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.deployments.e2e.watch", *experts],
            cwd=ROOT,
            env={**os.environ, SEVERAL_NODES: "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.next()

    def next(self) -> int:
        """Requests running and waiting in all engines, now."""
        called_at = time.time()
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            # Earlier observations are in the pipe until they are read.
            if line.startswith("{") and (observation := json.loads(line))["at"] >= called_at:
                return int(observation["busy"])
        raise AssertionError("the watch ended")

    def until_idle(self, within_s: float) -> bool:
        """Whether the engines become idle in time."""
        return self.until(lambda busy: busy == 0, within_s)

    def until(self, is_reached: Callable[[int], bool], within_s: float) -> bool:
        """Whether the number of busy requests satisfies a condition in time."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if is_reached(self.next()):
                return True
        return False

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=10)


@pytest.fixture(scope="package")
def watch(graph: Graph) -> Iterator[Watch]:
    watching = Watch()
    yield watching
    watching.close()
