"""Changes of a running graph: `serve deploy`, and the wait until its router has them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from cluster.local.run import ROOT

WITHIN_S = 60.0
POLL_S = 0.2
RESPONSE_WITHIN_S = 10.0
SWAPS = "to_router_policy_swaps_total"


def deploy(file: Path, url: str) -> None:
    """Deploy a configuration whose Router differs from the running one.

    Raises:
        RuntimeError: the router did not take it over.
    """
    before = counter(url, SWAPS)
    serve_deploy(file)
    if not until(lambda: counter(url, SWAPS) > before):
        raise RuntimeError("the router did not take over the configuration")


def serve_deploy(file: Path) -> None:
    """Run `serve deploy` on the graph of this machine; returns before the change is in effect.

    Raises:
        CalledProcessError: Serve rejected the configuration.
    """
    serve = str(Path(sys.executable).parent / "serve")
    env = {**os.environ, "RAY_AUTH_MODE": "token"}
    subprocess.run([serve, "deploy", str(file.resolve())], cwd=ROOT, env=env, check=True, capture_output=True)


def counter(url: str, name: str) -> float:
    """A counter's sum over its labels and replicas."""
    text = httpx.get(f"{url}/metrics", timeout=RESPONSE_WITHIN_S).text
    families = text_string_to_metric_families(text)
    return sum(one.value for family in families for one in family.samples if one.name == name)


def until(true: Callable[[], bool]) -> bool:
    """Wait; returns false where it took too long."""
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(POLL_S)
    return False
