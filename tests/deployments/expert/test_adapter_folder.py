"""Folders of adapters: which an engine can serve, and the reason where it cannot."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cluster.pocket.lora import save_adapter
from deployments.expert.adapter_folder import (
    AdapterFacts,
    AdapterRejectedError,
    Base,
    copy_adapter,
    inspect,
    read_base,
)
from tests.deployments.expert.adapter_files import IN, MODULE, OUT, adapter_folder, model_folder


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return read_base(str(model_folder(tmp_path / "base")))


def test_an_adapter_of_the_model_is_accepted(base: Base, tmp_path: Path) -> None:
    facts = inspect(adapter_folder(tmp_path / "sql"), base, max_rank=4)

    assert facts == AdapterFacts(4, 4 * (OUT + IN), frozenset({"q_proj"}), other_base=None)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"rank": 8}, "its rank 8 is above max_lora_rank 4"),
        ({"shape": (OUT, IN + 1)}, f"made for another model: {MODULE} is 12 × 9"),
        ({"module": "model.layers.7.self_attn.q_proj"}, "has no module model.layers.7"),
        ({"module": "transformer.h.0.attn.c_attn"}, "has no module transformer.h.0"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "no adapter with use_dora"),
        ({"bias": "all"}, "no adapter with bias"),
        ({"modules_to_save": ["lm_head"]}, "no adapter with modules_to_save"),
        ({"lora_alpha": "8"}, "lora_alpha must be a positive number"),
        ({"r": 0}, "r must be a positive number"),
        ({"r": 8}, "its rank 8 is above max_lora_rank 4"),
        ({"rank_pattern": {"v_proj": 16}}, "its rank 16 is above max_lora_rank 4"),
        ({"rank_pattern": {"v_proj": "16"}}, "rank_pattern must hold positive integers"),
        ({"rank_pattern": [16]}, "rank_pattern must hold positive integers"),
        ({"init_lora_weights": "pissa_niter_16"}, "no adapter with init_lora_weights: 'pissa_niter_16'"),
        ({"init_lora_weights": "OLoRA"}, "no adapter with init_lora_weights"),
        ({"target_modules": ...}, "target_modules is missing"),
        ({"tensors": {"lm_head.weight": np.zeros((2, 2), np.float32)}}, "which is no matrix of LoRA"),
        (
            {"tensors": {"base_model.model.model.layers.1.mlp.lora_A.weight": np.zeros((4, 2), np.float32)}},
            "do not fit each other",
        ),
    ],
)
def test_an_adapter_that_cannot_be_served_is_rejected(
    fields: dict[str, Any], reason: str, base: Base, tmp_path: Path
) -> None:
    folder = adapter_folder(tmp_path / "sql", **fields)

    with pytest.raises(AdapterRejectedError, match=reason):
        inspect(folder, base, max_rank=4)


@pytest.mark.parametrize(
    "fields",
    [
        {"init_lora_weights": False},
        {"init_lora_weights": "Gaussian"},
        {"rank_pattern": {"v_proj": 2}, "target_modules": "all-linear"},
        {"rank_pattern": None, "init_lora_weights": None},
    ],
)
def test_an_adapter_that_vllm_serves_is_accepted(fields: dict[str, Any], base: Base, tmp_path: Path) -> None:
    assert inspect(adapter_folder(tmp_path / "sql", **fields), base, max_rank=4).rank == 4


def test_an_adapter_of_the_pocket_is_accepted(base: Base, tmp_path: Path) -> None:
    matrices = {MODULE: (np.zeros((4, IN)), np.zeros((OUT, 4)))}

    assert inspect(save_adapter(tmp_path / "made", matrices), base, max_rank=4).rank == 4


def test_a_file_that_is_cut_off_is_rejected(base: Base, tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "sql")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])

    with pytest.raises(AdapterRejectedError, match="is corrupt or missing"):
        inspect(folder, base, max_rank=4)


@pytest.mark.parametrize(("text", "reason"), [("{", "is not JSON"), ("[]", "must hold an object")])
def test_a_broken_configuration_is_rejected(text: str, reason: str, base: Base, tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "sql")
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")

    with pytest.raises(AdapterRejectedError, match=reason):
        inspect(folder, base, max_rank=4)


def test_weights_in_a_pickle_file_are_not_read(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "sql")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    (tmp_path / "copy").mkdir()

    with pytest.raises(AdapterRejectedError, match=r"adapter_model\.safetensors is missing"):
        copy_adapter(folder, tmp_path / "copy")


def test_the_hash_follows_the_content_not_the_folder(tmp_path: Path) -> None:
    folders = [
        adapter_folder(tmp_path / "a"),
        adapter_folder(tmp_path / "b"),
        adapter_folder(tmp_path / "c", value=1.0),
        adapter_folder(tmp_path / "d", lora_alpha=16),
    ]
    (tmp_path / "copy").mkdir()
    first, same, other_weights, other_alpha = (copy_adapter(each, tmp_path / "copy") for each in folders)

    assert first == same
    assert len({first, other_weights, other_alpha}) == 3


def test_only_names_of_a_quantized_model_are_compared(tmp_path: Path) -> None:
    base = read_base(str(model_folder(tmp_path / "base", quantization_config={"quant_method": "awq"})))
    inspect(adapter_folder(tmp_path / "sql", shape=(1, 1)), base, max_rank=4)

    with pytest.raises(AdapterRejectedError, match="has no module"):
        inspect(adapter_folder(tmp_path / "other", module="model.layers.9.x"), base, max_rank=4)


@pytest.mark.parametrize("shape", [(12, 8), (6, 4)])
def test_either_of_two_towers_may_be_meant(shape: tuple[int, int], tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "base")
    vision = {"vision.encoder.layers.0.self_attn.q_proj.weight": np.zeros((6, 4), np.float32)}
    save_file(vision, folder / "model-2.safetensors")
    found = inspect(adapter_folder(tmp_path / "sql", shape=shape), read_base(str(folder)), max_rank=4)

    assert found.modules == {"q_proj"}


@pytest.mark.parametrize("served", ["Qwen/Qwen3-8B", "qwen/qwen3-8b"])
def test_a_model_of_the_hub_is_compared_by_its_name(served: str, tmp_path: Path) -> None:
    fits = adapter_folder(tmp_path / "fits", base_model_name_or_path="Qwen/Qwen3-8B")
    other = adapter_folder(tmp_path / "other", base_model_name_or_path="meta/Llama-3-8B")

    assert inspect(fits, read_base(served), max_rank=4).other_base is None
    with pytest.raises(AdapterRejectedError, match="it was made for meta/Llama-3-8B"):
        inspect(other, read_base(served), max_rank=4)


def test_another_name_of_a_model_that_fits_is_only_noted(base: Base, tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "sql", base_model_name_or_path="Qwen/Qwen3-8B")

    assert inspect(folder, base, max_rank=4).other_base == "Qwen/Qwen3-8B"
