"""The one file with the environment of the fast transport, and the callback that it names."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

from cluster.ingress import longest_response_s
from cluster.local.run import environment
from cluster.transport import CALLBACK, HARD_STOP, transport_flags
from deployments.app import middlewares
from tests.cluster.configs import ROOT


def test_the_fast_transport_is_read_from_its_one_file() -> None:
    flags = transport_flags()

    assert flags["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert not [name for name in flags if name.startswith("#")]


def test_the_callback_has_a_stable_name() -> None:
    path = transport_flags()[CALLBACK]
    module, _, name = path.partition(":")

    assert path == "deployments.app:middlewares"
    assert getattr(import_module(module), name) is middlewares


def test_the_module_of_the_callback_is_cheap_to_import() -> None:
    """Serve imports it in every process that speaks HTTP."""
    loaded, loaded_by_serve = (
        subprocess.run(
            [sys.executable, "-c", f"import sys; {imports}; print(*sys.modules)"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.split()
        for imports in ("import deployments.app", "from ray import serve")
    )  # fmt: skip

    heavy = {"torch", "vllm", "openvino", "numpy", "transformers"}
    assert heavy & set(loaded) <= heavy & set(loaded_by_serve)


def test_a_replaced_haproxy_outlasts_the_longest_response(tmp_path: Path) -> None:
    args = {"ingress": {"request_timeout_s": 900}}
    config = {"applications": [{"import_path": "deployments.app:build_app", "args": args}]}

    assert int(transport_flags()[HARD_STOP]) == longest_response_s({})
    assert environment(8000, tmp_path, fast=True, config=config)[HARD_STOP] == "930"
