"""What is wrong with the `args` of one expert: its model, its engine arguments, its share of GPUs.

Reads the model's folder where it is on this machine; asks no hub, no bucket and no GPU.
"""

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.check.finding import Finding
from cluster.check.known_keys import accelerators, engine_arguments
from cluster.check.memory import DEFAULT_UTILIZATION, WEIGHT_INDEX, check_memory, indexed_weights
from deployments.config import ExpertArgs, resolve

BUCKETS = ("s3://", "gs://", "az://", "azure://", "abfss://")
"""Where vLLM and Ray load a model from beside folders and the hub."""
ALIASES = ("A10",)
"""Accelerators that Ray Serve LLM takes for another name of Ray's: A10 is A10G."""
PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size")


def check_expert(data: Mapping[str, Any], where: str) -> Iterator[Finding]:
    """Everything that can be said of an expert's arguments beyond their own schema.

    Args:
        data: `args` of the application.
        where: the application, for the keys of the findings.
    """
    model = list(_model(data, f"{where}.args.model"))
    yield from model
    engine = data.get("engine") or {}
    if not isinstance(engine, Mapping):
        return  # told by the check of the arguments themselves, as is what the next one refuses
    faults = list(_engine(engine, f"{where}.args.engine"))
    yield from faults
    try:
        args = ExpertArgs.model_validate(data)
    except ValidationError:
        return
    yield from _accelerator(args, f"{where}.args.accelerator")
    if any(fault.key.endswith(PARALLEL) for fault in faults):
        return
    yield from _stages(args, where)
    yield from _fraction(args, where)
    if not any(fault.is_error for fault in model):
        yield from check_memory(data, where)


def _model(data: Mapping[str, Any], key: str) -> Iterator[Finding]:
    model = data.get("model")
    if not isinstance(model, str) or model.lower().startswith(BUCKETS):
        return
    if "://" in model:
        told = f"{model!r} is no place that vLLM loads from: give a folder, a hub id or {', '.join(BUCKETS)}…"
        yield Finding("error", key, told)
        return
    folder = resolve(model)
    if folder.is_dir():
        if (fault := _fault_of(folder)) is not None:
            yield Finding("error", key, fault)
    elif model.startswith("/"):
        told = f"{model!r} is not on this machine; it must be on the workers: mount it there"
        yield Finding("warning", key, told)
    elif model.startswith(".") or model.count("/") != 1:
        yield Finding("error", key, f"{model!r} is no folder here ({folder}) and no hub id")


def _fault_of(folder: Path) -> str | None:
    """Why an engine could not load a model from a folder, as far as its JSON files tell."""
    if not (folder / "config.json").is_file():
        return f"{folder} holds no config.json"
    for file in (folder / "config.json", folder / WEIGHT_INDEX):
        try:
            read = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        except ValueError as error:
            return f"{file} is not JSON: {error}"
        if not isinstance(read, dict):
            return f"{file} must hold an object, found {type(read).__name__}"
    missing = sorted(name for name in indexed_weights(folder) if not (folder / name).is_file())
    if missing:
        return f"{folder / WEIGHT_INDEX} names {missing[0]}, which is not there: finish the download"
    return None


def _engine(engine: Mapping[str, Any], key: str) -> Iterator[Finding]:
    known = engine_arguments()
    for name in sorted(str(name) for name in engine if known and name not in known):
        yield Finding("error", f"{key}.{name}", "vLLM knows no such engine argument")
    for name in PARALLEL:
        size = engine.get(name, 1)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            yield Finding("error", f"{key}.{name}", f"must be a whole number of at least 1, found {size!r}")


def _accelerator(args: ExpertArgs, key: str) -> Iterator[Finding]:
    known = accelerators()
    if not known or args.accelerator in {"cpu", "gpu", *ALIASES, *known}:
        return
    folded = {name.lower(): name for name in ("cpu", "gpu", *known)}
    near = get_close_matches(args.accelerator.lower(), folded, n=1)
    told = f"Ray knows no accelerator {args.accelerator!r}: " + (
        f"did you mean {folded[near[0]]}?" if near else "take a type such as H100, or `gpu` for any"
    )
    yield Finding("error", key, told)


def _stages(args: ExpertArgs, where: str) -> Iterator[Finding]:
    tensor, stages = (int(args.engine.get(name, 1)) for name in PARALLEL)
    if tensor > 1 and stages > 1:
        told = (
            f"{stages} stages of {tensor} workers: Serve's PACK only tries to keep the workers of a stage on "
            f"one node; take nodes of {tensor} GPUs, so that a stage fills one"
        )
        yield Finding("warning", f"{where}.args.engine.pipeline_parallel_size", told)


def _fraction(args: ExpertArgs, where: str) -> Iterator[Finding]:
    share = args.gpus_per_worker
    if args.accelerator == "cpu" or share == 1:
        return
    if args.workers > 1:
        told = (
            f"{share:g} with {args.workers} workers: two of them may land on one GPU, where they cannot talk "
            "to each other; give 1, or take one worker"
        )
        yield Finding("error", f"{where}.args.gpus_per_worker", told)
    given = args.engine.get("gpu_memory_utilization")
    memory = DEFAULT_UTILIZATION if given is None else given
    if isinstance(memory, int | float) and memory > share:
        found = f"is left out, so vLLM takes {memory:g}" if given is None else f"{memory:g} is"
        told = f"{found} of the GPU's memory, more than gpus_per_worker {share:g}: give at most {share:g}"
        yield Finding("error", f"{where}.args.engine.gpu_memory_utilization", told)
