"""The data type of an engine on a processor."""

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.engine_settings import ExpertArgs
from deployments.expert.cpu_dtype import dtype_of, instructions

AVX2 = {"fma", "avx2", "f16c"}


def expert(folder: Path, accelerator: str = "cpu", *, config: Any = None, **engine: Any) -> ExpertArgs:
    config = {"model_type": "llama", "dtype": "bfloat16"} if config is None else config
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return ExpertArgs(name="chat", model=str(folder), accelerator=accelerator, engine=engine)


def test_without_16_bit_instructions_an_engine_takes_32(tmp_path: Path) -> None:
    assert dtype_of(expert(tmp_path), AVX2) == "float32"
    assert dtype_of(expert(tmp_path, dtype="auto"), AVX2) == "float32"


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_processor_that_multiplies_16_bits_keeps_them(tmp_path: Path, name: str) -> None:
    assert dtype_of(expert(tmp_path), {*AVX2, name}) == "auto"


def test_a_configured_type_stays(tmp_path: Path) -> None:
    assert dtype_of(expert(tmp_path, dtype="bfloat16"), AVX2) == "bfloat16"


def test_a_gpu_is_left_to_vllm(tmp_path: Path) -> None:
    assert dtype_of(expert(tmp_path, "gpu"), AVX2) == "auto"


def test_a_quantized_model_keeps_16_bits(tmp_path: Path) -> None:
    assert dtype_of(expert(tmp_path, quantization="awq"), AVX2) == "auto"
    quantized = {"model_type": "llama", "quantization_config": {"quant_method": "awq"}}
    assert dtype_of(expert(tmp_path, config=quantized), AVX2) == "auto"


def test_what_is_not_known_is_left_to_vllm(tmp_path: Path) -> None:
    bucket = ExpertArgs(name="chat", model="s3://models/chat", accelerator="cpu")

    assert dtype_of(bucket, AVX2) == "auto"
    assert dtype_of(expert(tmp_path), frozenset()) == "auto"


@pytest.mark.parametrize("title", ["flags\t\t", "Features\t"])
def test_instructions_are_read_as_linux_names_them(tmp_path: Path, title: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\n{title}: fma avx2\n\n{title}: other\n", encoding="utf-8")

    assert instructions(file) == {"fma", "avx2"}
    assert instructions(tmp_path / "missing") == frozenset()
