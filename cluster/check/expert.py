"""The `args` of one expert: its model, its engine arguments, its share of GPUs.

Reads the model's folder if it is on this machine; calls no hub, no bucket and no GPU.
"""

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.check.engine import engine_errors
from cluster.check.finding import Finding
from cluster.check.known_keys import accelerators
from cluster.check.memory import DEFAULT_UTILIZATION, WEIGHT_INDEX, check_memory, indexed_weights
from deployments.engine_settings import ExpertArgs
from deployments.settings import resolve

BUCKETS = ("s3://", "gs://", "az://", "azure://", "abfss://")
"""Sources of models for vLLM and Ray, besides folders and the hub."""
ALIASES = ("A10",)
"""Further names that Ray Serve LLM accepts: A10 is Ray's A10G."""
PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size")


def check_expert(data: Mapping[str, Any], where: str) -> Iterator[Finding]:
    """Find the errors of an expert's arguments that their own schema does not show.

    Args:
        data: `args` of the application.
        where: the application, for the keys of the findings.
    """
    model = list(_model(data, f"{where}.args.model"))
    yield from model
    engine = data.get("engine") or {}
    if not isinstance(engine, Mapping):
        return  # already an error of the schema, as is what the next one rejects
    errors = list(engine_errors(engine, where))
    yield from errors
    try:
        args = ExpertArgs.model_validate(data)
    except ValidationError:
        return
    yield from _accelerator(args, f"{where}.args.accelerator")
    if errors:
        return
    yield from _stages(args, where)
    yield from _fraction(args, where)
    if not any(finding.is_error for finding in model):
        yield from check_memory(data, where)


def _model(data: Mapping[str, Any], key: str) -> Iterator[Finding]:
    model = data.get("model")
    if not isinstance(model, str) or model.lower().startswith(BUCKETS):
        return
    if "://" in model:
        message = f"vLLM cannot load {model!r}: give a folder, a hub id or {', '.join(BUCKETS)}…"
        yield Finding("error", key, message)
        return
    folder = resolve(model)
    if folder.is_dir():
        if (reason := _not_loadable(folder)) is not None:
            yield Finding("error", key, reason)
    elif model.startswith("/"):
        message = f"{model!r} is not on this machine; it must be on the workers: mount it there"
        yield Finding("warning", key, message)
    elif model.startswith(".") or model.count("/") != 1:
        yield Finding("error", key, f"{model!r} is neither a folder here ({folder}) nor a hub id")


def _not_loadable(folder: Path) -> str | None:
    """Return why an engine cannot load a model from a folder, as far as its JSON files show it."""
    if not (folder / "config.json").is_file():
        return f"{folder} has no config.json"
    for file in (folder / "config.json", folder / WEIGHT_INDEX):
        try:
            data = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        except ValueError as error:
            return f"{file} is not JSON: {error}"
        if not isinstance(data, dict):
            return f"{file} must hold an object, not {type(data).__name__}"
    missing = sorted(name for name in indexed_weights(folder) if not (folder / name).is_file())
    if missing:
        return f"{folder / WEIGHT_INDEX} names {missing[0]}, which is missing: finish the download"
    return None


def _accelerator(args: ExpertArgs, key: str) -> Iterator[Finding]:
    known = accelerators()
    if not known or args.accelerator in {"cpu", "gpu", *ALIASES, *known}:
        return
    folded = {name.lower(): name for name in ("cpu", "gpu", *known)}
    near = get_close_matches(args.accelerator.lower(), folded, n=1)
    message = f"Ray has no accelerator {args.accelerator!r}: " + (
        f"did you mean {folded[near[0]]}?" if near else "use a type such as H100, or `gpu` for any"
    )
    yield Finding("error", key, message)


def _stages(args: ExpertArgs, where: str) -> Iterator[Finding]:
    tensor, stages = (int(args.engine.get(name, 1)) for name in PARALLEL)
    if tensor > 1 and stages > 1:
        message = (
            f"{stages} stages of {tensor} workers: Serve's PACK only tries to keep the workers of a stage on "
            f"one node; use nodes of {tensor} GPUs, so that a stage fills one"
        )
        yield Finding("warning", f"{where}.args.engine.pipeline_parallel_size", message)


def _fraction(args: ExpertArgs, where: str) -> Iterator[Finding]:
    share = args.gpus_per_worker
    if args.accelerator == "cpu" or share == 1:
        return
    if args.workers > 1:
        message = (
            f"{share:g} with {args.workers} workers: two of them may share one GPU, where they cannot "
            "communicate; use 1, or one worker"
        )
        yield Finding("error", f"{where}.args.gpus_per_worker", message)
    configured = args.engine.get("gpu_memory_utilization")
    memory = DEFAULT_UTILIZATION if configured is None else configured
    if isinstance(memory, int | float) and memory > share:
        start = f"is missing, so vLLM uses {memory:g}" if configured is None else f"{memory:g} is"
        message = f"{start} of the GPU's memory, more than gpus_per_worker {share:g}: use at most {share:g}"
        yield Finding("error", f"{where}.args.engine.gpu_memory_utilization", message)
