"""The preStop of a worker pod, with a `ray` that only records its commands."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.configs import ROOT

DRAIN = ROOT / "cluster" / "kuberay" / "drain"
STUB = """#!/bin/sh
echo "$@" >> "$RECORD"
[ "$1" != "$FAILS" ]
"""


def environment(folder: Path, *, fails: str) -> dict[str, str]:
    """A `ray` in front of the installed one, of which one command fails."""
    stub = folder / "ray"
    stub.write_text(STUB, encoding="utf-8")
    stub.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "RECORD": str(folder / "record"), "FAILS": fails}


def drain(folder: Path, *, fails: str, seconds: str = "60") -> tuple[int, list[str]]:
    """Run the script; returns its status and the commands of `ray`."""
    env = environment(folder, fails=fails)
    done = subprocess.run([str(DRAIN), seconds], env=env, check=False, capture_output=True, timeout=30)
    return done.returncode, (folder / "record").read_text("utf-8").splitlines()


@pytest.fixture
def replica() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is named as Serve names a replica, until its input ends."""
    command = ["bash", "-c", "exec -a ray::ServeReplica:app:Expert cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        cmdline = Path(f"/proc/{process.pid}/cmdline")
        wait_until(lambda: cmdline.read_bytes().startswith(b"ray::ServeReplica"))
        yield process


def wait_until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_a_pod_stays_until_its_replicas_have_ended(tmp_path: Path, replica: subprocess.Popen[bytes]) -> None:
    record = tmp_path / "record"
    with subprocess.Popen([str(DRAIN), "60"], env=environment(tmp_path, fails="")) as pod:
        wait_until(lambda: record.exists() and record.read_text("utf-8").count("health-check") > 1)
        stayed = pod.poll() is None
        assert replica.stdin is not None
        replica.stdin.close()

        assert stayed
        assert pod.wait(timeout=30) == 0
    drained = record.read_text("utf-8").splitlines()[0]
    assert drained.startswith("drain-node --reason DRAIN_NODE_REASON_PREEMPTION")
    assert drained.endswith("--deadline-remaining-seconds 60")


def test_a_pod_whose_head_is_gone_does_not_wait(tmp_path: Path) -> None:
    status, commands = drain(tmp_path, fails="drain-node")

    assert (status, len(commands)) == (0, 1)


def test_a_pod_does_not_wait_longer_than_its_limit(tmp_path: Path) -> None:
    status, commands = drain(tmp_path, fails="", seconds="0")

    assert (status, len(commands)) == (0, 1)


def test_the_installed_ray_has_the_options_that_the_script_uses() -> None:
    from ray.scripts.scripts import drain_node, healthcheck

    options = {name for parameter in drain_node.params for name in parameter.opts}

    assert {"--reason", "--reason-message", "--deadline-remaining-seconds"} <= options
    assert healthcheck.name == "health-check"
