"""Cost of a CPU engine's step, with its worker in a separate process and without.

    python -m experiments.engine_alone [--expert generalist] [--rounds 3] [--seconds 3]

Starts vLLM's engine in each way, one after the other, with the engine arguments of
cluster/local/claims.yaml, and generates answers of 16 tokens; no HTTP, no Serve. Prints tokens per second
and the processor milliseconds per request of all processes of the engine.
"""

import argparse
import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import yaml

from deployments.engine_settings import ExpertArgs
from deployments.expert.cpu_dtype import dtype_of
from deployments.placement import engine_environment
from load_tests.processes import cpu_s

CONFIG = Path("cluster/local/claims.yaml")
CALLERS = (1, 2, 8)
TOKENS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--expert", default="generalist")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load in each round")
    options = parser.parse_args()
    applications = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["applications"]
    args = next(app["args"] for app in applications if app["name"] == f"expert-{options.expert}")
    expert = ExpertArgs.model_validate(args)
    os.environ.update({"VLLM_LOGGING_LEVEL": "ERROR"} | engine_environment(expert))
    print(f"{options.expert}, {os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f} before\n")
    print("| worker | started after, s | concurrent requests | tokens/s | processor ms per request |")
    print("|---|---|---|---|---|")
    for executor, label in (("mp", "its own process"), ("uni", "the core's process")):
        asyncio.run(_measure(expert, executor, label, options))


async def _measure(expert: ExpertArgs, executor: str, label: str, options: argparse.Namespace) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.executor.abstract import Executor

    started = time.monotonic()
    engine_args = {name: value for name, value in expert.engine.items() if "tool" not in name}
    engine_args["dtype"] = dtype_of(expert)
    config = AsyncEngineArgs(
        model=expert.model, distributed_executor_backend="mp", **engine_args
    ).create_engine_config()
    config.parallel_config.distributed_executor_backend = executor
    engine = AsyncLLM(
        vllm_config=config, executor_class=Executor.get_class(config), log_requests=False, log_stats=True
    )
    try:
        await _load(engine, 1, 1.0)
        up_s = time.monotonic() - started - 1.0
        for callers in CALLERS:
            rounds = [await _load(engine, callers, options.seconds) for _ in range(options.rounds)]
            rate, cost = (median(column) for column in zip(*rounds, strict=True))
            print(f"| {label} | {up_s:.1f} | {callers} | {rate:.0f} | {cost:.1f} |", flush=True)
    finally:
        engine.shutdown()


async def _load(engine: Any, callers: int, seconds: float) -> tuple[float, float]:
    """Return tokens per second, and processor milliseconds per request."""
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=TOKENS, temperature=0, ignore_eos=True)
    done, end = 0, time.monotonic() + seconds

    async def caller(number: int) -> None:
        nonlocal done
        while time.monotonic() < end:
            query = f"What is {done} + {7 * done}?"
            async for _ in engine.generate(query, parameters, f"{number}-{done}-{time.monotonic_ns()}"):
                pass
            done += 1

    before, began = _used_s(), time.monotonic()
    await asyncio.gather(*(caller(number) for number in range(callers)))
    return TOKENS * done / (time.monotonic() - began), 1000 * (_used_s() - before) / done


def _used_s() -> float:
    """Return the processor time of this process and of its running children."""
    this = psutil.Process()
    used = 0.0
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it ended in the meantime
            used += cpu_s(process.pid)
    return used


if __name__ == "__main__":
    main()
