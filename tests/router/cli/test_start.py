"""`to-router start` writes a policy without a network."""

import json
from pathlib import Path

import pytest

from router.cli import main
from router.policy import Policy
from tests.router.data_sets import tiny_encoder

EXPERTS = """
experts:
  - {name: llama, model: meta-llama/Llama-3.1-8B-Instruct, price_per_mtok: {input: 0.05, output: 0.08}}
  - {name: qwen, model: Qwen/Qwen3-32B, tokens_per_s: 1000, gpus: 2}
  - {name: google/gemma-3-27b-it}
  - {name: mystery, model: acme/frobnicator-9000}
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def experts(tmp_path: Path) -> Path:
    file = tmp_path / "experts.yaml"
    file.write_text(EXPERTS, encoding="utf-8")
    return file


def options(experts: Path, encoder: Path, out: Path) -> list[str]:
    return ["start", "--experts", str(experts), "--encoder", str(encoder), "--out", str(out)]


def test_start_writes_a_policy(
    experts: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policy"

    code = main([*options(experts, encoder, out), "--gpu-usd-per-hour", "2.5", "--json"])
    printed = capsys.readouterr()

    assert code == 0
    assert json.loads(printed.out)["policy_id"] == Policy.load(out).policy_id
    assert "nothing is known of 'acme/frobnicator-9000'" in printed.err
    assert "no price is known of google/gemma-3-27b-it, mystery" in printed.err


def test_a_gpu_price_becomes_a_price_of_tokens(experts: Path, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy"
    main([*options(experts, encoder, out), "--gpu-usd-per-hour", "2.5"])

    price = Policy.load(out).pool["qwen"].price

    assert price is not None
    assert price.output == pytest.approx(2.5 * 2 / 3.6)


@pytest.mark.parametrize(
    "text",
    ["experts: []", "experts: [{name: a, model: 3}]", "experts: [{name: a, colour: red}]", "nothing: here"],
)
def test_an_invalid_file_is_one_line(
    text: str, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "experts.yaml"
    file.write_text(text, encoding="utf-8")

    code = main(
        ["start", "--experts", str(file), "--encoder", str(encoder), "--out", str(tmp_path / "policy")]
    )

    assert code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "policy").exists()
