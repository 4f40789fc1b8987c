"""What a model's `config.json` says of its family, its size and its quantisation.

A running replica reports these keys alone, so that a prior can be made far from the model's folder.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from router.errors import InputError

NUMBERS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "moe_intermediate_size",
    "vocab_size",
    "tie_word_embeddings",
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "num_experts_per_tok",
)
"""Keys of the transformer's shape."""
LONGEST_WORD = 64
"""Characters of a type's or a method's name; a longer one is left out."""


def config_of(folder: Path) -> dict[str, Any] | None:
    """The `config.json` of a model's folder; `None` where there is no such folder.

    Raises:
        InputError: it cannot be read as JSON.
    """
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON: {error}") from error
    return data if isinstance(data, dict) else None


def shape_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a `config.json` that facts are read from, without those whose values are no such facts.

    Read again, they give the same facts; the model of a text inside several modalities counts alone.
    """
    text = config.get("text_config")
    inner: Mapping[str, Any] = text if isinstance(text, Mapping) else config
    found = {key: inner[key] for key in NUMBERS if _is_number(inner.get(key))}
    if _is_word(kind := config.get("model_type")):
        found["model_type"] = kind
    quantised = config.get("quantization_config")
    if isinstance(quantised, Mapping):
        bits = {key: quantised[key] for key in ("bits", "num_bits") if _is_number(quantised.get(key))}
        method = quantised.get("quant_method")
        found["quantization_config"] = bits | ({"quant_method": method} if _is_word(method) else {})
    return found


def size_of(config: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """(all, active) parameters in billions from the shape of a transformer; about right."""
    try:
        width, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
        heads = int(config["num_attention_heads"])
        inner, words = int(config["intermediate_size"]), int(config.get("vocab_size") or 0)
    except (KeyError, TypeError, ValueError):
        return None, None
    groups = int(config.get("num_key_value_heads") or heads)
    size = int(config.get("head_dim") or width // max(heads, 1))
    attention = 2 * width * size * (heads + groups)
    experts = int(
        config.get("num_local_experts") or config.get("num_experts") or config.get("n_routed_experts") or 1
    )
    used = int(config.get("num_experts_per_tok") or 1) if experts > 1 else 1
    each = 3 * width * int(config.get("moe_intermediate_size") or inner)
    rows = words * width * (1 if config.get("tie_word_embeddings") else 2)
    total, active = ((layers * (attention + count * each) + rows) / 1e9 for count in (experts, used))
    if not (math.isfinite(total) and total > 0):
        return None, None
    return total, active if experts > 1 else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_WORD
