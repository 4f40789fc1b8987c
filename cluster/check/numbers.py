"""Values of Serve's options and of vLLM's engine arguments: kind and range."""

import ast
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cluster.check.finding import Finding


class Range(NamedTuple):
    """A number from `low`; `above` excludes `low` itself."""

    low: float
    high: float = math.inf
    whole: bool = True
    above: bool = False
    words: tuple[str, ...] = ()
    """Texts that mean a number."""
    nullable: bool = True
    """Whether null is the default."""


COUNT, FROM_ZERO = Range(1), Range(0)
EXACT_COUNT = Range(1, nullable=False)
SECONDS, POSITIVE = Range(0, whole=False), Range(0, whole=False, above=True)
HTTP = {"port": Range(0, 65_535), "keep_alive_timeout_s": FROM_ZERO}
DEPLOYMENT = {
    "num_replicas": Range(0, words=("auto",)), "max_ongoing_requests": COUNT,
    "max_queued_requests": Range(-1),
    "graceful_shutdown_timeout_s": SECONDS, "graceful_shutdown_wait_loop_s": SECONDS,
    "health_check_period_s": POSITIVE, "health_check_timeout_s": POSITIVE,
}  # fmt: skip
AUTOSCALING = {
    "min_replicas": Range(0, nullable=False), "initial_replicas": FROM_ZERO, "max_replicas": EXACT_COUNT,
    "target_ongoing_requests": POSITIVE, "upscale_delay_s": SECONDS, "downscale_delay_s": SECONDS,
    "metrics_interval_s": POSITIVE, "look_back_period_s": POSITIVE,
    "upscaling_factor": POSITIVE, "downscaling_factor": POSITIVE,
}  # fmt: skip
ENGINE = {
    "max_model_len": COUNT, "max_num_seqs": COUNT, "max_num_batched_tokens": COUNT, "block_size": COUNT,
    "tensor_parallel_size": EXACT_COUNT, "pipeline_parallel_size": EXACT_COUNT, "data_parallel_size": COUNT,
    "kv_cache_memory_bytes": COUNT, "max_loras": COUNT, "max_lora_rank": COUNT, "seed": FROM_ZERO,
    "gpu_memory_utilization": Range(0, 1, whole=False, above=True), "cpu_offload_gb": SECONDS,
}  # fmt: skip


def wrong_numbers(data: Mapping[str, Any], ranges: Mapping[str, Range], where: str) -> Iterator[Finding]:
    """Find the values that are no number of their range; one that is left out is the default."""
    for name, allowed in ranges.items():
        value = data.get(name)
        if name not in data or (value is None and allowed.nullable) or _fits(value, allowed):
            continue
        yield Finding("error", f"{where}.{name}", f"must be {_described(allowed)}, not {value!r:.60}")


def _fits(value: object, allowed: Range) -> bool:
    if isinstance(value, str):
        return value in allowed.words
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    if allowed.whole and not isinstance(value, int):
        return False
    return allowed.low <= value <= allowed.high and not (allowed.above and value == allowed.low)


def _described(allowed: Range) -> str:
    kind = "an integer" if allowed.whole else "a number"
    low = f"above {allowed.low:g}" if allowed.above else f"of at least {allowed.low:g}"
    high = "" if math.isinf(allowed.high) else f" and at most {allowed.high:g}"
    words = "".join(f" or {word!r}" for word in allowed.words)
    return f"{kind} {low}{high}{words}"


PLAIN: Mapping[str, tuple[type, ...]] = {
    "bool": (bool,), "int": (int,), "float": (int, float), "str": (str,), "list": (list,), "dict": (Mapping,),
}  # fmt: skip
"""Kinds of values by the name of their annotation."""
WORDS = {"bool": "true or false", "int": "an integer", "float": "a number", "str": "text", "list": "a list",
         "dict": "an object"}  # fmt: skip


def wrong_kinds(data: Mapping[str, Any], annotations: Mapping[str, str], where: str) -> Iterator[Finding]:
    """Find the values of another kind than their annotation, such as what YAML makes of `no` and `on`.

    A name in an annotation that is none of `PLAIN` may mean anything except a truth value.
    """
    for name, value in data.items():
        if value is None or name not in annotations:
            continue
        members = set(_members(ast.parse(annotations[name], mode="eval").body))
        plain = [member for member in PLAIN if member in members]
        if any(_is_of(value, member) for member in plain):
            continue
        if members - PLAIN.keys() - {"None"} and not isinstance(value, bool):
            continue
        expected = " or ".join(WORDS[member] for member in plain) or "text: put it in quotes"
        yield Finding("error", f"{where}.{name}", f"must be {expected}, not {value!r:.60}")


def _members(annotation: ast.expr) -> Iterator[str]:
    """The names of a union, without their parameters."""
    if isinstance(annotation, ast.BinOp):
        yield from _members(annotation.left)
        yield from _members(annotation.right)
    elif isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        yield from _members(ast.parse(annotation.value, mode="eval").body)
    else:
        yield ast.unparse(annotation.value if isinstance(annotation, ast.Subscript) else annotation)


def _is_of(value: object, member: str) -> bool:
    return isinstance(value, PLAIN[member]) and (member == "bool" or not isinstance(value, bool))
