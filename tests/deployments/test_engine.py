"""An expert's application is built without vLLM, and is the one Ray Serve LLM would build."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.config import ExpertArgs
from deployments.placement import engine_environment, expert_options

pytest.importorskip("vllm")

SHAPES: dict[str, dict[str, Any]] = {
    "cpu": {"accelerator": "cpu", "cpus_per_worker": 0.1},
    "cpu with its cache set": {"accelerator": "cpu", "engine": {"kv_cache_memory_bytes": 1 << 27}},
    "one gpu": {"accelerator": "gpu"},
    "a part of a gpu": {"accelerator": "gpu", "gpus_per_worker": 0.5, "environment": {"A": "b"}},
    "two of a type, by label": {
        "accelerator": "H100",
        "engine": {"tensor_parallel_size": 2},
        "pool": {"labels": {"pool": "math"}},
    },
    "two stages, by resource": {
        "accelerator": "gpu",
        "engine": {"pipeline_parallel_size": 2},
        "pool": {"resources": {"math": 1}},
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_options_are_those_of_ray_serve_llms_builder(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.llm._internal.serve.core.server.builder import DEFAULT_DEPLOYMENT_OPTIONS
    from ray.serve.llm.deployment import LLMServer

    from deployments.engine import llm_config

    def task() -> SimpleNamespace:
        return SimpleNamespace(runtime_env={"working_dir": "gcs://x"})

    monkeypatch.setattr(ray, "get_runtime_context", task)
    args = ExpertArgs(name="words", model="cluster/local/experts/words", **SHAPES[shape])
    theirs = DEFAULT_DEPLOYMENT_OPTIONS | LLMServer.get_deployment_options(llm_config(args))
    theirs["placement_group_bundles"] = [
        {resource: amount for resource, amount in bundle.items() if amount}
        for bundle in theirs["placement_group_bundles"]
    ]
    ours = expert_options(args, runtime_env=task().runtime_env)
    selector = ours.pop("placement_group_bundle_label_selector", None)
    assert ours == theirs
    assert selector == ([{"pool": "math"}] * 2 if "label" in shape else None)


def test_building_an_application_imports_neither_vllm_nor_torch() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, deployments.app, deployments.expert; print({'vllm', 'torch'} & sys.modules.keys())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("model", "fetched"), [("cluster/local/experts/words", False), ("some/hub-id", True)]
)
async def test_a_folder_is_not_fetched_and_a_hub_id_is(model: str, fetched: bool) -> None:
    from deployments.engine import LocalFolder, llm_config

    config = llm_config(ExpertArgs(name="words", model=model, accelerator="cpu"))
    callback = LocalFolder(llm_config=config)
    await callback.on_before_node_init()
    assert callback.ctx.run_init_node is fetched


SPIN = """
import time, zmq
from vllm.plugins import load_general_plugins
load_general_plugins()
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

context = zmq.Context()
address = "ipc://" + {path!r}
writer = SpinCondition(False, context, address)
reader = SpinCondition(True, context, address)
looks, until = 0, time.monotonic() + 0.5
while time.monotonic() < until:
    reader.record_read()
    reader.wait(None)
    looks += 1
writer.notify()
reader.wait(10_000)
print(looks)
"""


def looks(environment: dict[str, str], folder: Path) -> int:
    """How often a worker of such an engine looks for work in the half second after a step."""
    done = subprocess.run(
        [sys.executable, "-c", SPIN.format(path=str(folder / "notify"))],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.splitlines()[-1])


def test_an_engine_on_a_cpu_sleeps_between_its_steps_and_others_spin_as_vllm_does(tmp_path: Path) -> None:
    on_cpu = ExpertArgs(name="words", model="cluster/local/experts/words", accelerator="cpu")
    on_gpu = ExpertArgs(name="words", model="cluster/local/experts/words", accelerator="gpu")
    assert looks(engine_environment(on_cpu), tmp_path) <= 0.5 / 0.002 + 1
    assert looks(engine_environment(on_gpu), tmp_path) > 1000
