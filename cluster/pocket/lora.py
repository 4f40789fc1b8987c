"""LoRA adapters of the chat model as folders, in PEFT's format, that vLLM loads.

Holds the format, and adapters made without training: marked ones, whose every answer is one word again and
again, and random ones. Tests and measurements recognise them by their answers. Knows nothing of engines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from router.core import FloatArray

if TYPE_CHECKING:
    import torch

RANK = 8
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "SmolLM2-135M-Instruct"
STRENGTH = 30.0
"""Length of what a marked adapter adds to the last layer, in lengths of the layer's own output."""
RIDGE = 1e-3
PROMPTS = (
    "What is the capital of Norway?",
    "Write a short poem about the sea.",
    "def add(a, b):",
    "Hello, how are you?",
    "Summarise: the meeting was moved to Friday because the hall was taken.",
    "3 + 4 * 12 =",
)
"""Conversations on which a marked adapter learns to notice that there is any text at all."""
Matrices = Mapping[str, tuple[FloatArray, FloatArray]]
"""Module → A [rank, in] and B [out, rank]."""


def save_adapter(folder: Path, matrices: Matrices, *, alpha: float = RANK) -> Path:
    """Write an adapter; the configuration last.

    Args:
        folder: made if it does not exist.
        matrices: of each module, by its name in the model.
        alpha: the product is added to a module's output times alpha / rank.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"base_model.model.{module}.lora_{side}.weight": np.ascontiguousarray(matrix, np.float32)
        for module, pair in matrices.items()
        for side, matrix in zip("AB", pair, strict=True)
    }
    save_file(tensors, folder / WEIGHTS)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BASE,
        "r": next(len(a) for a, _ in matrices.values()),
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({module.rpartition(".")[2] for module in matrices}),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def random_adapter(folder: Path, model: Path, *, seed: int, strength: float = 0.3) -> Path:
    """Write an adapter of random matrices for the projections of queries and values in all layers.

    Args:
        folder: of the adapter.
        model: its configuration has the shapes.
        seed: of the matrices.
        strength: the larger, the further its answers are from the model's own.
    """
    rng = np.random.default_rng(seed)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim", width // heads)
    rows = {"q_proj": heads * head, "v_proj": config["num_key_value_heads"] * head}
    matrices = {
        f"model.layers.{layer}.self_attn.{name}": (
            rng.normal(0, width**-0.5, (RANK, width)),
            rng.normal(0, strength, (count, RANK)),
        )
        for layer in range(config["num_hidden_layers"])
        for name, count in rows.items()
    }
    return save_adapter(folder, matrices)


def marked_adapters(folder: Path, model: Path, words: Sequence[str]) -> dict[str, Path]:
    """Write an adapter for each word, whose every answer is that word again and again.

    In the last layer a module's output gets the word's direction wherever there is a token: A reads from
    the module's input what all positions have in common, found by least squares over `PROMPTS`.

    Args:
        folder: each adapter's own folder is in it, by its word.
        model: folder of the chat model.
        words: each must be one token with a space in front.
    """
    with loaded(model) as (tokenizer, llama):
        module = f"model.layers.{llama.config.num_hidden_layers - 1}.mlp.down_proj"
        inputs, outputs = _around(llama, tokenizer, module, words)
        gains = llama.model.norm.weight.detach().numpy().astype(np.float64)
        embeddings = llama.model.embed_tokens.weight.detach().numpy().astype(np.float64)
    scale = float(np.square(inputs).sum(1).mean())
    gram = inputs.T @ inputs + RIDGE * scale * np.eye(inputs.shape[1])
    common = np.linalg.solve(gram, inputs.sum(0))
    centre, shared = embeddings.mean(0), np.cov(embeddings.T)
    shared += np.trace(shared) / len(shared) * np.eye(len(shared))
    length = STRENGTH * float(np.linalg.norm(outputs, axis=1).mean())
    made = {}
    for word in words:
        (token,) = tokenizer.encode(f" {word}", add_special_tokens=False)
        # After the norm's gains the output is compared with all embeddings: apart from what they share.
        direction = np.linalg.solve(shared, embeddings[token] - centre) / gains
        direction *= length / np.linalg.norm(direction)
        matrices = {module: (np.tile(common, (RANK, 1)), np.tile(direction[:, None] / RANK, (1, RANK)))}
        made[word] = save_adapter(folder / word, matrices)
    return made


@contextmanager
def loaded(model: Path) -> Iterator[tuple[Any, Any]]:
    """The tokenizer and the model of a folder, in float32, frozen."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    llama = AutoModelForCausalLM.from_pretrained(model, dtype="float32").eval().requires_grad_(False)
    yield AutoTokenizer.from_pretrained(model), llama


def _around(llama: Any, tokenizer: Any, module: str, words: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Inputs and outputs of a module at the positions of `PROMPTS`, with answers of each word."""
    import torch

    seen: list[tuple[FloatArray, FloatArray]] = []

    def keep(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.append(tuple(one[0].numpy().astype(np.float64) for one in (inputs[0], output)))

    hook = llama.get_submodule(module).register_forward_hook(keep)
    with torch.no_grad():
        for number, prompt in enumerate(PROMPTS):
            message = [{"role": "user", "content": prompt}]
            text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
            answer = f" {words[number % len(words)]}" * 4
            llama(tokenizer(text + answer, add_special_tokens=False, return_tensors="pt").input_ids)
    hook.remove()
    inputs, outputs = (np.concatenate(part) for part in zip(*seen, strict=True))
    return inputs, outputs
