"""What is kept of a `config.json`."""

from router.priors.facts import facts_of
from router.priors.shape import shape_of

CONFIG = {
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "awq", "bits": 4, "ignore": ["lm_head"]},
    "architectures": ["Qwen3MoeForCausalLM"],
    "torch_dtype": "bfloat16",
}


def test_a_shape_gives_the_facts_of_its_configuration() -> None:
    shape = shape_of(CONFIG)

    assert facts_of("own", shape) == facts_of("own", CONFIG)
    assert shape_of(shape) == shape
    assert not {"architectures", "torch_dtype"} & shape.keys()


def test_the_shape_of_several_modalities_is_their_texts() -> None:
    config = {"model_type": "gemma3", "text_config": CONFIG, "vision_config": {"hidden_size": 1152}}

    assert facts_of("own", shape_of(config)) == facts_of("own", config)


def test_values_that_are_no_facts_are_left_out() -> None:
    config = {"model_type": "x" * 65, "hidden_size": "wide", "vocab_size": float("inf")}
    config["quantization_config"] = {"bits": "four", "quant_method": ["awq"]}

    assert shape_of(config) == {"quantization_config": {}}
