"""Facts of models from their names and configurations."""

import pytest

from router.priors.facts import facts_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Meta-Llama-3_1-70B-Instruct", "meta-llama/llama-3.1-70b-instruct-turbo"),
        ("claude-4-sonnet-20250514-thinking-64k", "claude-sonnet-4-20250514 (32k thinking)"),
        ("Gemini 1.5 Pro 002", "gemini-1.5-pro-002"),
        ("Mistral Large 2 (2407)", "mistral-large-2407"),
        ("o1-2024-12-17 (high)", "o1-2024-12-17-high"),
    ],
)
def test_names_of_one_model_are_one_model(one: str, other: str) -> None:
    assert facts_of(one).model == facts_of(other).model


def test_releases_of_one_model_share_its_line() -> None:
    undated, dated = facts_of("claude-3.5-sonnet"), facts_of("claude-3-5-sonnet-20241022")

    assert undated.line == dated.line
    assert undated.model != dated.model


@pytest.mark.parametrize(
    ("name", "total_b", "active_b"),
    [
        ("Qwen/Qwen3-235B-A22B", 235, 22),
        ("mistralai/Mistral-7B-Instruct-v0.3", 7, None),
        ("llama-4-maverick", 400, 17),
        ("llama-4-maverick-17b-128e-instruct", 400, 17),
        ("c4ai-command-r-v01", 35, None),
        ("gpt-4o", None, None),
    ],
)
def test_sizes_are_read_from_names(name: str, total_b: float | None, active_b: float | None) -> None:
    assert (facts_of(name).total_b, facts_of(name).active_b) == (total_b, active_b)


@pytest.mark.parametrize(
    ("name", "thinking"),
    [
        ("qwen3-32b-thinking", True),
        ("DeepSeek R1", True),
        ("claude-opus-4 (no thinking)", False),
        ("gpt-4o", False),
    ],
)
def test_thinking_is_read_from_names(name: str, thinking: bool) -> None:
    assert facts_of(name).thinking is thinking


def test_bits_are_read_from_names_and_configurations() -> None:
    named = facts_of("Qwen/Qwen2.5-7B-Instruct-AWQ")
    configured = facts_of("own", {"model_type": "llama", "quantization_config": {"quant_method": "fp8"}})

    assert (named.bits, configured.bits) == (4, 8)


def test_a_configuration_gives_family_and_size() -> None:
    shape = {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 14336,
    }
    shape |= {"num_key_value_heads": 8, "vocab_size": 128256, "model_type": "llama"}

    found = facts_of("", shape)

    assert found.family == "llama"
    assert found.total_b == pytest.approx(8.0, rel=0.03)


def test_nameless_facts_hold_no_name() -> None:
    found = facts_of("meta-llama/Llama-3.1-8B-Instruct").nameless()

    assert (found.model, found.line) == (None, None)
    assert (found.family, found.total_b) == ("llama", 8)
