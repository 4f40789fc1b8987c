"""The data type in which an engine on a processor computes, where its arguments leave it open.

vLLM would take 16 bits on any processor. One that cannot multiply them converts every number to 32 bits
and back: measured on a processor with AVX2 alone, SmolLM2-135M reads prompts five times as slowly.
"""

from collections.abc import Collection
from pathlib import Path

from deployments.engine_settings import ExpertArgs

CPU_INFO = Path("/proc/cpuinfo")
MULTIPLIES_16_BITS = frozenset({"avx512_bf16", "amx_bf16", "avx512_fp16", "bf16", "asimdhp"})
"""Names that Linux gives to such instructions, on x86 and on ARM."""


def instructions(cpu_info: Path = CPU_INFO) -> frozenset[str]:
    """What this processor can do, as Linux names it; empty where that cannot be read."""
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    values = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(values, "").split())


def dtype_of(args: ExpertArgs, available: Collection[str] | None = None) -> str:
    """The engine argument `dtype` of an expert.

    As configured; where that is `auto` or missing, `float32` for an engine on a processor that cannot
    multiply 16-bit numbers, unless the model is quantized, which vLLM ties to 16 bits, or its configuration
    cannot be read here.

    Args:
        args: the expert.
        available: what the processor can do; default: that of this machine.
    """
    configured = str(args.engine.get("dtype", "auto"))
    if configured != "auto" or args.accelerator != "cpu":
        return configured
    found = instructions() if available is None else available
    slow = bool(found) and MULTIPLIES_16_BITS.isdisjoint(found)
    return "float32" if slow and _is_plain(args) else configured


def _is_plain(args: ExpertArgs) -> bool:
    """Whether the model is known not to be quantized."""
    from transformers import PretrainedConfig  # takes seconds

    if args.engine.get("quantization"):
        return False
    try:
        config, _ = PretrainedConfig.get_config_dict(args.model_source)
    except (OSError, ValueError):  # vLLM reports it, or reads from where transformers cannot
        return False
    return bool(config) and not config.get("quantization_config")
