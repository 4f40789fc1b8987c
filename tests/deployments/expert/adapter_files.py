"""Adapters and the model that they are for, as small folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

MODULE = "model.layers.0.self_attn.q_proj"
OUT, IN = 12, 8


def model_folder(folder: Path, **config: Any) -> Path:
    """A model with one projection."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}), encoding="utf-8")
    weights = {
        f"{MODULE}.weight": np.zeros((OUT, IN), np.float32),
        "model.norm.weight": np.ones(8, np.float32),
    }
    save_file(weights, folder / "model.safetensors")
    return folder


def adapter_folder(
    folder: Path,
    *,
    rank: int = 4,
    module: str = MODULE,
    shape: tuple[int, int] = (OUT, IN),
    value: float = 0.0,
    tensors: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """An adapter of that projection, with what is special of its configuration; `...` omits a field."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 8,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "base",
        **config,
    }
    fields = {name: value for name, value in fields.items() if value is not ...}
    (folder / "adapter_config.json").write_text(json.dumps(fields), encoding="utf-8")
    prefix = f"base_model.model.{module}"
    weights = {
        f"{prefix}.lora_A.weight": np.full((rank, shape[1]), value, np.float32),
        f"{prefix}.lora_B.weight": np.full((shape[0], rank), value, np.float32),
    }
    save_file({**weights, **(tensors or {})}, folder / "adapter_model.safetensors")
    return folder
