"""An expert's arguments: the sources of its model, and how engines share GPUs."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.check.expert import check_expert
from cluster.check.known_keys import accelerators

FOLDER = "cluster/local/experts/words"


def findings(**args: Any) -> list[tuple[str, str, str]]:
    """Findings of an expert, with the key's part after `args.`."""
    data = {"name": "sums", "model": FOLDER, **args}
    return [(f.level, f.key.removeprefix("app.args."), f.message) for f in check_expert(data, "app")]


@pytest.mark.parametrize("model", ["s3://bucket/model", "gs://bucket/a/b", "az://box/x", "Qwen/Qwen3-8B"])
def test_a_model_may_lie_in_a_bucket_or_on_the_hub(model: str) -> None:
    assert findings(model=model) == []


def test_a_folder_that_only_the_workers_have_is_a_warning() -> None:
    (finding,) = findings(model="/models/on/a/volume")

    assert finding[:2] == ("warning", "model")
    assert "'/models/on/a/volume' is not on this machine; it must be on the workers" in finding[2]


@pytest.mark.parametrize("model", ["ftp://host/model", "./nowhere", "a/b/c"])
def test_a_model_that_lies_nowhere_is_an_error(model: str) -> None:
    (finding,) = findings(model=model)

    assert finding[:2] == ("error", "model")
    assert repr(model) in finding[2]


INDEX = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "has no config.json"),
        ({"config.json": "{"}, "config.json is not JSON: "),
        ({"config.json": "[]"}, "config.json must hold an object, not list"),
        ({"config.json": "{}", "model.safetensors.index.json": "x"}, "index.json is not JSON: "),
        ({"config.json": "{}", "model.safetensors.index.json": "3"}, "must hold an object, not int"),
        (
            {
                "config.json": "{}",
                "model.safetensors.index.json": json.dumps(INDEX),
                "model-1-of-2.safetensors": "",
            },
            "index.json names model-2-of-2.safetensors, which is missing: finish the download",
        ),
    ],
)
def test_a_folder_that_no_engine_can_load_is_rejected(
    tmp_path: Path, files: dict[str, str], expected: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    ((level, key, message),) = findings(model=str(tmp_path), accelerator="L4")

    assert (level, key) == ("error", "model")
    assert expected in message
    assert str(tmp_path) in message


@pytest.mark.parametrize(
    ("name", "expected"), [("h100", "did you mean H100?"), ("GPU", "mean gpu?"), ("abacus", "such as H100")]
)
def test_an_accelerator_unknown_to_ray_is_rejected(name: str, expected: str) -> None:
    ((level, key, message),) = findings(accelerator=name)

    assert (level, key) == ("error", "accelerator")
    assert repr(name) in message
    assert expected in message


def test_the_names_of_accelerators_are_those_of_the_installed_ray() -> None:
    assert {"H100", "L4", "A100-80G"} <= accelerators()
    assert findings(accelerator="H200") == []


def test_memory_beyond_the_share_of_a_gpu_is_rejected() -> None:
    key = "engine.gpu_memory_utilization"

    assert findings(gpus_per_worker=0.4, engine={"gpu_memory_utilization": 0.4}) == []
    assert findings(gpus_per_worker=0.95) == []
    (configured,) = findings(gpus_per_worker=0.4, engine={"gpu_memory_utilization": 0.9})
    assert configured[:2] == ("error", key)
    assert "0.9 is of the GPU's memory, more than gpus_per_worker 0.4" in configured[2]
    (default,) = findings(gpus_per_worker=0.4)
    assert default[:2] == ("error", key)
    assert "missing, so vLLM uses 0.92" in default[2]


@pytest.mark.parametrize("size", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_workers_of_one_replica_do_not_share_a_gpu(size: str) -> None:
    ((level, key, message),) = findings(gpus_per_worker=0.5, engine={size: 2, "gpu_memory_utilization": 0.4})

    assert (level, key) == ("error", "gpus_per_worker")
    assert "0.5 with 2 workers" in message


def test_stages_of_several_workers_may_be_separated() -> None:
    engine = {"tensor_parallel_size": 4, "pipeline_parallel_size": 2}
    ((level, key, message),) = findings(engine=engine)

    assert (level, key) == ("warning", "engine.pipeline_parallel_size")
    assert "use nodes of 4 GPUs" in message
    assert findings(engine={"pipeline_parallel_size": 2}) == []


@pytest.mark.parametrize("size", [0, -1, "two", True, None])
def test_sizes_of_parallelism_are_whole_numbers(size: object) -> None:
    ((level, key, message),) = findings(engine={"tensor_parallel_size": size})

    assert (level, key) == ("error", "engine.tensor_parallel_size")
    assert repr(size) in message
