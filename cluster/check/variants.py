"""Variants of an engine: the adapters of its application, and the experts that use them.

Reads the adapters' folders if they are on this machine; calls no hub and no GPU.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.check.engine import engine_errors
from cluster.check.finding import Finding
from cluster.check.memory import GIB, size_of
from cluster.packing import BUILD_EXPERT
from deployments.config import IngressConfig
from deployments.engine_settings import EXPERT_DEPLOYMENT, ExpertArgs, ExpertConfig
from deployments.expert.adapter_folder import (
    AdapterFacts,
    AdapterRejectedError,
    inspect,
    is_hub_id,
    read_base,
)
from deployments.settings import resolve

REASONING_ARGUMENTS = ("reasoning_parser", "reasoning_config")
"""Engine arguments of which vLLM needs one to count tokens of reasoning."""
CPU_IS_SLOW = (
    "vLLM's CPU kernels copy an adapter's matrices for each token, which is slow: use adapters there for "
    "trials only"
)
PARAMETER_BYTES = 2
"""Of a slot for an adapter, in the model's own bfloat16."""


def check_variants(
    ingress: IngressConfig, applications: Sequence[Mapping[str, Any]], key: str
) -> Iterator[Finding]:
    """Find the errors of variants that only their application shows.

    Args:
        ingress: the experts.
        applications: every application of the file.
        key: of the experts, for the findings.
    """
    for app in applications:
        if app.get("import_path") != BUILD_EXPERT:
            continue
        try:
            args = ExpertArgs.model_validate(app.get("args") or {})
            config = ExpertConfig.model_validate(_user_config(app))
        except ValidationError:
            continue  # already an error of the schema
        where = str(app.get("name"))
        if any(engine_errors(args.engine, where)):
            continue  # already an error of the expert
        yield from _adapters(args, config, where)
        names = ingress.applications().get(where, [])
        yield from _experts(ingress, names, args, config, key)
        used = {ingress.experts[name].adapter for name in names}
        for unused in sorted(config.adapters.keys() - used):
            message = f"no expert uses this adapter: add it under {key}, or remove it"
            yield Finding("warning", f"{where}.Expert.user_config.adapters.{unused}", message)


def _experts(
    ingress: IngressConfig, names: Sequence[str], args: ExpertArgs, config: ExpertConfig, key: str
) -> Iterator[Finding]:
    for name in names:
        target = ingress.experts[name]
        if target.adapter is not None and target.adapter not in config.adapters:
            known = ", ".join(config.adapters) or "none"
            message = f"{target.app!r} has no adapter {target.adapter!r} in its user_config; it has {known}"
            yield Finding("error", f"{key}.{name}.adapter", message)
        counts = any(args.engine.get(argument) for argument in REASONING_ARGUMENTS)
        if target.thinking_tokens is not None and not counts:
            message = f"{target.app!r} cannot count them: set reasoning_parser in its args.engine"
            yield Finding("error", f"{key}.{name}.thinking_tokens", message)


def _adapters(args: ExpertArgs, config: ExpertConfig, where: str) -> Iterator[Finding]:
    if not config.adapters:
        return
    if not args.takes_adapters:
        message = f"is missing: the engine starts without LoRA and rejects {', '.join(config.adapters)}"
        yield Finding("error", f"{where}.args.engine.max_loras", message)
    if args.accelerator == "cpu":
        yield Finding("warning", f"{where}.args.accelerator", CPU_IS_SLOW)
    most = args.max_loras
    if len(config.adapters) > most:
        message = f"{most} for {len(config.adapters)} adapters: a step of the engine serves {most} of them"
        yield Finding("warning", f"{where}.args.engine.max_loras", message)
    found: list[AdapterFacts] = []
    for name, folder in config.adapters.items():
        yield from _adapter(args, folder, f"{where}.{EXPERT_DEPLOYMENT}.user_config.adapters.{name}", found)
    yield from _memory(args, found, f"{where}.args.engine.max_loras")


def _adapter(args: ExpertArgs, folder: str, key: str, found: list[AdapterFacts]) -> Iterator[Finding]:
    source = resolve(folder)
    if not source.is_dir():
        away = Path(folder).is_absolute() or is_hub_id(folder)
        message = f"{folder!r} is not on this machine" + ("; the workers must find it" if away else "")
        yield Finding("warning" if away else "error", key, message)
        return
    try:
        facts = inspect(source, read_base(args.model_source), max_rank=args.max_lora_rank)
    except AdapterRejectedError as error:
        yield Finding("error", key, str(error))
        return
    found.append(facts)
    targets = args.engine.get("lora_target_modules")
    if isinstance(targets, list) and (missing := sorted(facts.modules.difference(map(str, targets)))):
        message = f"vLLM ignores its {', '.join(missing)}: not in lora_target_modules of args.engine"
        yield Finding("warning", key, message)
    if facts.other_base is not None:
        message = f"it names {facts.other_base} as its base, the engine serves {args.model}: compare them"
        yield Finding("warning", key, message)


def _memory(args: ExpertArgs, adapters: Sequence[AdapterFacts], key: str) -> Iterator[Finding]:
    """Find whether the engine's slots for adapters, as large as the largest adapter, exceed its GPUs."""
    size = size_of(args)
    slots = args.max_loras
    if size is None or not adapters:
        return
    per_rank = max(adapter.parameters / adapter.rank for adapter in adapters)
    taken = slots * args.max_lora_rank * per_rank * PARAMETER_BYTES / args.workers / GIB
    if taken > size.kv:
        message = (
            f"{slots} slots of rank {args.max_lora_rank} take {taken:.1f} GiB per GPU, and "
            f"{max(size.kv, 0):.1f} GiB are left on {size.accelerator}: lower max_loras or max_lora_rank"
        )
        yield Finding("error", key, message)


def _user_config(app: Mapping[str, Any]) -> Any:
    deployments = app.get("deployments") or []
    found = (d.get("user_config") for d in deployments if d.get("name") == EXPERT_DEPLOYMENT)
    return next(found, None) or {}
