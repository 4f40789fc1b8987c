"""An expert's memory before an engine starts, and the cases in which it is unknown."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.check.memory import GIB, check_memory, size_of, sizes, table
from deployments.engine_settings import ExpertArgs
from tests.cluster.configs import expert

SHAPE = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
LARGE = "Qwen/Qwen2.5-32B-Instruct"


def args(model: str, **engine: Any) -> dict[str, Any]:
    return {"name": "sums", "model": model, "accelerator": "L4", "engine": engine}


def weights(model: str, **engine: Any) -> float | None:
    """GiB of weights per GPU, or `None` if they are unknown."""
    size = size_of(ExpertArgs.model_validate(args(model, **engine)))
    return None if size is None else size.weights


def folder(path: Path, gib: float, **config: Any) -> str:
    """A model whose weights are a file with a hole of that size."""
    (path / "config.json").write_text(json.dumps({**SHAPE, **config}), encoding="utf-8")
    with (path / "model.safetensors").open("wb") as file:
        file.truncate(int(gib * GIB))
    return str(path)


@pytest.mark.parametrize("length", [{}, {"max_model_len": 0}, {"max_model_len": -1}])
def test_weights_are_checked_without_a_context(length: dict[str, int]) -> None:
    (finding,) = check_memory(args(LARGE, **length), "app")

    assert finding.key == "app.args.accelerator"
    assert "61.1 GiB of weights per GPU do not fit on L4" in finding.message
    assert list(check_memory(args("Qwen/Qwen2.5-7B-Instruct", **length), "app")) == []


def test_of_an_unknown_quantization_nothing_is_claimed() -> None:
    assert weights(LARGE, quantization="compressed-tensors") is None
    assert weights(LARGE, quantization="fp8") == pytest.approx(32.8e9 / GIB)


def test_a_quantized_folder_weighs_what_it_weighs(tmp_path: Path) -> None:
    model = folder(tmp_path, 4.0, quantization_config={"quant_method": "awq"})

    assert weights(model) == 4.0
    assert weights(model, quantization="awq") == 4.0
    assert weights(model, quantization="compressed-tensors") == 4.0


def test_a_second_copy_that_the_index_does_not_name_weighs_nothing(tmp_path: Path) -> None:
    model = folder(tmp_path, 4.0)
    (tmp_path / "consolidated.safetensors").write_bytes(bytes(1024))
    assert weights(model) == 4.0 + 1024 / GIB

    index = {"weight_map": {"lm_head.weight": "model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert weights(model) == 4.0


def test_a_plain_folder_weighs_less_when_it_is_quantized_at_load(tmp_path: Path) -> None:
    model = folder(tmp_path, 4.0, torch_dtype="bfloat16")

    assert weights(model) == 4.0
    assert weights(model, quantization="fp8") == 2.0


def test_a_folder_of_32_bits_is_served_in_16(tmp_path: Path) -> None:
    assert weights(folder(tmp_path, 4.0, dtype="float32")) == 2.0


def test_of_a_folder_without_weights_nothing_is_claimed(tmp_path: Path) -> None:
    assert weights(folder(tmp_path, 0.0)) is None


def test_the_table_has_a_line_for_an_expert_without_a_context() -> None:
    app = expert("sums", model="Qwen/Qwen2.5-7B-Instruct", accelerator="L4", engine={})

    assert table(sizes({"applications": [app]})).endswith("| what fits |")
