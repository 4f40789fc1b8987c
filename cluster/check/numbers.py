"""Numbers of Serve's options and of vLLM's engine arguments: kind and range."""

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
