"""The preStop of a worker pod, with a `ray` that only records its commands."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.configs import ROOT

DRAIN = ROOT / "cluster" / "kuberay" / "drain"
STUB = """#!/bin/sh
echo "$@" >> "$RECORD"
[ "$1" != "$FAILS" ]
"""


def drain(folder: Path, *, fails: str, seconds: str = "60") -> tuple[int, list[str], float]:
    """Run the script; returns its status, the commands of `ray`, and the time it took."""
    stub = folder / "ray"
    stub.write_text(STUB, encoding="utf-8")
    stub.chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "RECORD": str(folder / "record"), "FAILS": fails}
    began = time.monotonic()
    done = subprocess.run([str(DRAIN), seconds], env=env, check=False, capture_output=True, timeout=30)
    return done.returncode, (folder / "record").read_text("utf-8").splitlines(), time.monotonic() - began


@pytest.fixture
def replica() -> Iterator[None]:
    """A process that is named as Serve names a replica, for about a second."""
    with subprocess.Popen(["bash", "-c", "exec -a ray::ServeReplica:app:Expert sleep 1"]):
        yield


@pytest.mark.usefixtures("replica")
def test_a_pod_stays_until_its_replicas_have_ended(tmp_path: Path) -> None:
    status, commands, took = drain(tmp_path, fails="")

    assert status == 0
    assert commands[0].startswith("drain-node --reason DRAIN_NODE_REASON_PREEMPTION")
    assert commands[0].endswith("--deadline-remaining-seconds 60")
    assert took > 1


def test_a_pod_whose_head_is_gone_does_not_wait(tmp_path: Path) -> None:
    status, commands, _ = drain(tmp_path, fails="drain-node")

    assert (status, len(commands)) == (0, 1)


def test_a_pod_does_not_wait_longer_than_its_limit(tmp_path: Path) -> None:
    status, commands, _ = drain(tmp_path, fails="", seconds="0")

    assert (status, len(commands)) == (0, 1)


def test_the_installed_ray_has_the_options_that_the_script_uses() -> None:
    from ray.scripts.scripts import drain_node, healthcheck

    options = {name for parameter in drain_node.params for name in parameter.opts}

    assert {"--reason", "--reason-message", "--deadline-remaining-seconds"} <= options
    assert healthcheck.name == "health-check"
