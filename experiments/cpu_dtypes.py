"""What the data type of an engine's computation is worth on this processor.

    python -m experiments.cpu_dtypes [--model FOLDER] [--dtypes bfloat16,float32] [--rounds 3]

Each data type in a process of its own, in turn for each round: vLLM's engine without HTTP or Serve reads a
prompt of about 1,500 tokens, or as many as the model takes, and answers 1, 8 and 32 short prompts at once.
Prints medians of both speeds, in tokens per second. The graph chooses by
`deployments/expert/cpu_dtype.py`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from cluster.pocket.chat_model import FOLDER as CHAT
from deployments.expert.cpu_dtype import MULTIPLIES_16_BITS, instructions

AT_ONCE = (1, 8, 32)
ANSWER_TOKENS = 32
PROMPT_TOKENS = 1500
SHORT_PROMPT = "Add 17 and 25, count the letters of banana, and name the capital of France. " * 2
CACHE_BYTES = 2**30
MOST_S = 600.0
"""For one data type, with the engine's start."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare data types; 1 if an engine does not start."""
    parser = argparse.ArgumentParser(prog="python -m experiments.cpu_dtypes", description=__doc__)
    parser.add_argument("--model", type=Path, default=CHAT)
    parser.add_argument("--dtypes", default="bfloat16,float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(_speeds(options.model, options.measure)))
        return 0
    dtypes = options.dtypes.split(",")
    found: dict[str, list[list[float]]] = {dtype: [] for dtype in dtypes}
    for _ in range(options.rounds):
        for dtype in dtypes:
            command = [sys.executable, "-m", "experiments.cpu_dtypes", "--model", str(options.model)]
            done = subprocess.run(
                [*command, "--measure", dtype], check=False, capture_output=True, text=True, timeout=MOST_S
            )
            if done.returncode != 0:
                print(f"{dtype}: the engine failed:\n{done.stderr[-2000:]}", file=sys.stderr)
                return 1
            found[dtype].append(json.loads(done.stdout.splitlines()[-1]))
    can = ", ".join(sorted(MULTIPLIES_16_BITS & instructions())) or "none"
    print(f"{options.model}, {os.cpu_count()} processors, instructions for 16 bits: {can}\n")
    columns = [f"output tokens/s, {n} at once" for n in AT_ONCE]
    print("| dtype | prompt tokens/s | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * (1 + len(columns)))
    for dtype, rounds in found.items():
        cells = (
            f"{median(column):.1f} ({min(column):.1f} to {max(column):.1f})"
            for column in zip(*rounds, strict=True)
        )
        print(f"| {dtype} | " + " | ".join(cells) + " |")
    return 0


def _speeds(model: Path, dtype: str) -> list[float]:
    """Return tokens per second of a long prompt, and of 1, 8 and 32 answers at once."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=str(model),
        dtype=dtype,
        enforce_eager=True,
        enable_prefix_caching=False,
        max_num_seqs=max(AT_ONCE),
        kv_cache_memory_bytes=CACHE_BYTES,
        disable_log_stats=True,
    )
    tokens = min(PROMPT_TOKENS, engine.llm_engine.model_config.max_model_len - ANSWER_TOKENS)
    long_prompt = {"prompt_token_ids": [100 + i % 150 for i in range(tokens)]}
    speeds = [tokens / _seconds(engine, [long_prompt], SamplingParams(max_tokens=1))]
    sampling = SamplingParams(temperature=0, max_tokens=ANSWER_TOKENS, ignore_eos=True)
    for n in AT_ONCE:
        prompts = [f"{i}. {SHORT_PROMPT}" for i in range(n)]
        speeds.append(n * ANSWER_TOKENS / _seconds(engine, prompts, sampling))
    return speeds


def _seconds(engine: Any, prompts: Sequence[object], sampling: object) -> float:
    """Seconds of the second of two equal calls: the first one warms up."""
    for _ in range(2):
        began = time.monotonic()
        engine.generate(prompts, sampling, use_tqdm=False)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
