"""GPU memory of an expert from its weights and KV cache: what fits before an engine starts.

    python -m cluster.check.memory CONFIG       the table that docs/deploy.md shows

Facts come from the model's own folder, else from models.yaml; a model of neither is skipped.
Arithmetic only; uses no GPU.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cluster.check.finding import Finding
from deployments.engine_settings import ExpertArgs
from deployments.settings import resolve

WEIGHT_INDEX = "model.safetensors.index.json"
FACTS = Path(__file__).with_name("models.yaml")
GIB = 2**30
WEIGHT_BYTES = {
    None: 2.0, "fp8": 1.0, "fp8_per_tensor": 1.0, "fp8_per_block": 1.0, "fp8_per_channel": 1.0,
    "int8_per_channel_weight_only": 1.0, "awq": 0.56, "awq_marlin": 0.56, "gptq": 0.56, "gptq_marlin": 0.56,
}  # fmt: skip
"""Bytes per parameter by quantization; 4-bit methods keep scales and zero points beside the weights."""
SAVED_BYTES = {"float32": 4}
"""Bytes per parameter in a folder by its dtype, if not 2."""
DEFAULT_UTILIZATION = 0.92
"""vLLM 0.32's default of gpu_memory_utilization."""
OVERHEAD_GIB = 2.0
"""Per GPU: CUDA context, activations and compiled graphs; vLLM profiles the true figure at start."""


@dataclass(frozen=True, slots=True)
class Model:
    """Facts that determine a model's memory."""

    parameters: float
    layers: int
    kv_heads: int
    head_dim: int
    quantized_bytes: float | None = None
    """Weights of a folder that is already quantized: no setting changes them."""

    def weights_gib(self, quantization: str | None) -> float | None:
        """Return the size of the weights, or `None` if the quantization is unknown here."""
        if self.quantized_bytes is not None:
            return self.quantized_bytes / GIB
        width = WEIGHT_BYTES.get(quantization if quantization is None else str(quantization))
        return None if width is None else self.parameters * width / GIB

    def kv_bytes_per_token(self, kv_dtype: str) -> float:
        """Return the bytes of one token's keys and values over all layers."""
        width = 1 if kv_dtype.startswith("fp8") else 2
        return 2 * self.layers * self.kv_heads * self.head_dim * width


@dataclass(frozen=True, slots=True)
class Size:
    """One expert's memory on each of its GPUs, in GiB."""

    name: str
    accelerator: str
    workers: int
    memory: float
    weights: float
    kv: float
    """Left for the KV cache; may be negative."""
    context: int | None
    """`max_model_len`; `None` if vLLM chooses what fits."""
    kv_per_request: float
    """KV cache of one request at full context; 0 without one."""

    @property
    def full_requests(self) -> int:
        """Requests at full context that the KV cache holds at once."""
        return max(0, int(self.kv / self.kv_per_request)) if self.kv_per_request else 0


@cache
def _facts() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    return data


def model_facts(model: str) -> Model | None:
    """Return a model's facts from its folder or from the table; `None` if neither has them."""
    folder = resolve(model)
    if (folder / "config.json").is_file():
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not {"num_hidden_layers", "num_attention_heads", "hidden_size"} <= config.keys():
            return None
        heads = int(config["num_attention_heads"])
        size = _weight_bytes(folder)
        if not size:
            return None
        saved = config.get("dtype") or config.get("torch_dtype")
        return Model(
            parameters=size / SAVED_BYTES.get(str(saved), 2),
            layers=int(config["num_hidden_layers"]),
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
            quantized_bytes=size if config.get("quantization_config") else None,
        )
    known = _facts()["models"].get(model)
    return None if known is None else Model(**known)


def indexed_weights(folder: Path) -> set[str]:
    """Return the files that a folder's index of weights names; none if it has no index."""
    index = folder / WEIGHT_INDEX
    if not index.is_file():
        return set()
    files = json.loads(index.read_text(encoding="utf-8")).get("weight_map")
    return {str(name) for name in files.values()} if isinstance(files, dict) else set()


def _weight_bytes(folder: Path) -> int:
    """Return the size of the files that vLLM would load: those of the index if there is one."""
    indexed = indexed_weights(folder)
    files = folder.glob("*.safetensors")
    return sum(file.stat().st_size for file in files if not indexed or file.name in indexed)


def size_of(args: ExpertArgs) -> Size | None:
    """Return the memory of an expert on GPUs of a known type, or `None` if a fact is missing."""
    memory = _facts()["accelerators_gib"].get(args.accelerator)
    facts = model_facts(args.model)
    whole = facts.weights_gib(args.engine.get("quantization")) if facts is not None else None
    if memory is None or facts is None or whole is None:
        return None
    length = args.engine.get("max_model_len")
    context = length if isinstance(length, int) and length > 0 else None
    tensor = int(args.engine.get("tensor_parallel_size", 1))
    stages = int(args.engine.get("pipeline_parallel_size", 1))
    # A KV head is not split: with more workers than heads, each keeps a copy.
    split = min(tensor, facts.kv_heads) * stages
    weights = whole / args.workers
    utilization = args.engine.get("gpu_memory_utilization")
    usable = memory * float(DEFAULT_UTILIZATION if utilization is None else utilization)
    per_token = facts.kv_bytes_per_token(str(args.engine.get("kv_cache_dtype", "auto"))) / split
    return Size(
        name=args.name,
        accelerator=args.accelerator,
        workers=args.workers,
        memory=memory,
        weights=weights,
        kv=usable - weights - OVERHEAD_GIB,
        context=context,
        kv_per_request=per_token * (context or 0) / GIB,
    )


def check_memory(data: Mapping[str, Any], where: str) -> Iterator[Finding]:
    """Find whether an expert's weights, and one request at the configured context, exceed its GPUs."""
    try:
        size = size_of(ExpertArgs.model_validate(data))
    except (ValidationError, ValueError, TypeError):
        return  # already an error of the schema
    if size is None:
        return
    gpu = f"{size.accelerator} ({size.memory:g} GiB)"
    if size.kv <= 0:
        message = (
            f"{size.weights:.1f} GiB of weights per GPU do not fit on {gpu} beside {OVERHEAD_GIB:g} GiB of "
            "working memory: raise tensor_parallel_size, quantize, or use a larger accelerator"
        )
        yield Finding("error", f"{where}.args.accelerator", message)
    elif size.context is not None and not size.full_requests:
        most = int(size.context * size.kv / size.kv_per_request)
        message = (
            f"{size.context} tokens take {size.kv_per_request:.1f} GiB of KV cache, {size.kv:.1f} GiB are "
            f"left on {gpu} beside the weights: at most {most} tokens"
        )
        yield Finding("error", f"{where}.args.engine.max_model_len", message)


def sizes(config: Mapping[str, Any]) -> list[Size]:
    """Return the memory of a configuration's experts whose facts are known."""
    from cluster.packing import BUILD_EXPERT

    applications = [a for a in config.get("applications") or [] if a.get("import_path") == BUILD_EXPERT]
    every = (size_of(ExpertArgs.model_validate(app.get("args") or {})) for app in applications)
    return [size for size in every if size is not None]


def table(experts: list[Size]) -> str:
    """Return the sizes as a Markdown table."""
    rows = [
        "| expert | GPUs of one replica | weights per GPU | left for KV | full-context requests at once |",
        "|---|---|---|---|---|",
    ]
    rows += [
        f"| {s.name} | {s.workers} × {s.accelerator} | {s.weights:.1f} GiB | {s.kv:.1f} GiB "
        f"| {_requests(s)} |"
        for s in experts
    ]
    return "\n".join(rows)


def _requests(size: Size) -> str:
    return "what fits" if size.context is None else f"{size.full_requests} × {size.context} tokens"


if __name__ == "__main__":
    print(table(sizes(yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8")))))
