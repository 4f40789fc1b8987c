"""One pocket expert on disk: a Hugging Face folder with a stamp that records its sources.

The stamp is written last; a folder whose stamp and files agree is complete. Knows nothing of training.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.pocket.questions import MATERIAL
from cluster.pocket.recipe import Recipe, recipe_hash
from cluster.pocket.tokenizer import CONTEXT_WINDOW, END, PAD, save_tokenizer, vocabulary

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

EXPERTS = MATERIAL.parent / "local" / "experts"
STAMP = "stamp.json"
_WEIGHTS_LIMIT_BYTES = 8_000_000  # of all experts: they are part of the repository


class FileFacts(BaseModel):
    """Hash and size of one file of the folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str
    bytes: int


class Stamp(BaseModel):
    """Sources of an expert, and its accuracy."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    expert: str
    recipe_sha256: str
    seed: int
    parameters: int
    heldout_accuracy: dict[str, float]
    """Task or kind of question → fraction of correct greedy answers, with the stored weights."""
    heldout_questions: int
    files: dict[str, FileFacts]


class ExpertFolderError(ValueError):
    """The folder is not a complete expert."""


def is_up_to_date(recipe: Recipe, folder: Path) -> bool:
    """Whether `folder` was made by exactly this recipe and is complete."""
    try:
        return verified_stamp(folder).recipe_sha256 == recipe_hash(recipe)
    except (OSError, ExpertFolderError):
        return False


def verified_stamp(folder: Path) -> Stamp:
    """Read the stamp and check every file that it lists.

    Raises:
        OSError: a file is missing or cannot be read.
        ExpertFolderError: the stamp cannot be read, or a file differs from it.
    """
    try:
        stamp = Stamp.model_validate_json((folder / STAMP).read_bytes())
    except ValidationError as error:
        raise ExpertFolderError(
            f"{folder / STAMP} is not a valid stamp: {error}; run `make experts`"
        ) from error
    for name, expected in stamp.files.items():
        actual = _facts(folder / name)
        if actual != expected:
            raise ExpertFolderError(
                f"{folder / name} has sha256 {actual.sha256}, its stamp has {expected.sha256}: "
                "restore the file or run `make experts`"
            )
    return stamp


def write_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Write all that an engine reads, without a stamp: config, bf16 weights, tokenizer, chat template."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / STAMP).unlink(missing_ok=True)
    tensors = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", _config(model))
    ids = vocabulary()
    _write_json(folder / "generation_config.json", generation_config(ids[END], ids[PAD]))
    save_tokenizer(folder)


def write_stamp(
    recipe: Recipe, folder: Path, *, parameters: int, accuracy: dict[str, float], count: int
) -> Stamp:
    """Record the sources of `folder`, which is complete from now on.

    Args:
        recipe: the expert's recipe.
        folder: its files.
        parameters: their number.
        accuracy: the fraction of correct answers by task and kind.
        count: the number of questions behind it.
    """
    files = {path.name: _facts(path) for path in sorted(folder.iterdir()) if path.name != STAMP}
    stamp = Stamp(
        expert=recipe.name,
        recipe_sha256=recipe_hash(recipe),
        seed=recipe.seed,
        parameters=parameters,
        heldout_accuracy={name: round(value, 4) for name, value in accuracy.items()},
        heldout_questions=count,
        files=files,
    )
    _write_json(folder / STAMP, stamp.model_dump())
    return stamp


def generation_config(eos: int, pad: int) -> dict[str, Any]:
    """Greedy decoding by default: vLLM ignores `do_sample`, so the temperature has to be 0."""
    return {"eos_token_id": eos, "pad_token_id": pad, "do_sample": False, "temperature": 0.0}


def check_total_size(experts: Path) -> int:
    """Return the bytes of all weights under `experts`.

    Raises:
        ExpertFolderError: they exceed the limit.
    """
    total = sum(path.stat().st_size for path in experts.glob("*/model.safetensors"))
    if total > _WEIGHTS_LIMIT_BYTES:
        raise ExpertFolderError(
            f"weights under {experts} take {total} bytes, the limit is {_WEIGHTS_LIMIT_BYTES}: "
            "make the recipes smaller"
        )
    return total


def _config(model: LlamaForCausalLM) -> dict[str, Any]:
    kept = (
        "hidden_act", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "vocab_size", "rms_norm_eps", "rope_parameters",
        "tie_word_embeddings",
        "attention_bias", "mlp_bias", "eos_token_id", "pad_token_id", "bos_token_id",
    )  # fmt: skip
    config = model.config.to_dict()
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "max_position_embeddings": CONTEXT_WINDOW,
        **{key: config[key] for key in kept},
    }


def _facts(path: Path) -> FileFacts:
    data = path.read_bytes()
    return FileFacts(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
