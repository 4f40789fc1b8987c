"""Three adapters on one engine against three engines: memory and tokens per second.

    python -m experiments.variant_engines [--part one|three] [--requests 48] [--lanes 6]

Starts the graph twice with the chat model: once with one engine and three adapters, once with an engine for
each of the three. The same requests go to each, and their three models get equal shares. Prints the table.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from cluster.local.run import serving
from cluster.pocket.chat_model import FOLDER as MODEL
from experiments.variants import ADAPTERS, QUERIES, await_experts, graph, make, write

PORT = 8242
TOKENS = 16
TITLES = ("VLLM::EngineCore", "ray::ServeReplica:expert-")
"""Processes of engines: vLLM's, and the replicas in front of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both graphs."""
    parser = argparse.ArgumentParser(prog="python -m experiments.variant_engines", description=__doc__)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--lanes", type=int, default=6, help="requests in flight")
    parser.add_argument("--part", choices=("one", "three"), help="number of engines; default: both")
    parser.add_argument("--out", type=Path, default=Path("var/variant-engines"))
    options = parser.parse_args(arguments)
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    adapters = make(out / "adapters", MODEL, ADAPTERS)
    graphs = {
        "one": (graph({name: adapters[name] for name in ADAPTERS}), ADAPTERS),
        "three": (separate(), tuple(f"chat-{number}" for number in range(3))),
    }
    file = out / "figures.json"
    figures = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for part, (data, models) in graphs.items():
        if options.part in {part, None}:
            with serving(write(data, out), port=PORT, log=out / "serve.log") as (url, process):
                await_experts(url, process)
                figures[part] = measured(url, models, options.requests, options.lanes)
            file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(table(figures))
    return 0


def measured(url: str, models: Sequence[str], requests: int, lanes: int) -> dict[str, float]:
    """Memory of a running graph's engines, and their tokens per second."""
    load(url, models, 2 * len(models), len(models))  # adapters and caches are loaded
    began = time.monotonic()
    tokens = load(url, models, requests, lanes)
    seconds = time.monotonic() - began
    return {"memory_mib": memory_mib(), "tokens_per_s": tokens / seconds}


def separate() -> dict[str, Any]:
    """The default graph with three engines of the chat model, without adapters."""
    data = graph({})
    main_app, chat = data["applications"]
    del chat["deployments"][0]["user_config"]
    for name in ("max_loras", "max_lora_rank", "max_cpu_loras"):
        del chat["args"]["engine"][name]
    names = [f"chat-{number}" for number in range(3)]
    apps = []
    for name in names:
        app = copy.deepcopy(chat)
        apps.append({**app, "name": f"expert-{name}", "args": {**app["args"], "name": name}})
    main_app["deployments"][0]["user_config"]["experts"] = {name: {"app": f"expert-{name}"} for name in names}
    return {**data, "applications": [main_app, *apps]}


def load(url: str, models: Sequence[str], requests: int, lanes: int) -> int:
    """Send requests, so many at a time, and return the tokens of their answers.

    Raises:
        httpx.HTTPError: one was not answered.
    """
    numbers = iter(range(requests))
    lock, counts, errors = threading.Lock(), [], []

    def lane() -> None:
        try:
            counts.append(_answers(url, models, _shared(numbers, lock)))
        except httpx.HTTPError as error:
            errors.append(error)

    threads = [threading.Thread(target=lane) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts)


def _shared(numbers: Iterable[int], lock: threading.Lock) -> Iterable[int]:
    iterator = iter(numbers)
    while True:
        with lock:
            number = next(iterator, None)
        if number is None:
            return
        yield number


def _answers(url: str, models: Sequence[str], numbers: Iterable[int]) -> int:
    tokens = 0
    with httpx.Client(base_url=url, timeout=120) as client:
        for number in numbers:
            body = {
                "model": models[number % len(models)],
                "messages": [{"role": "user", "content": QUERIES[number % len(QUERIES)]}],
                "max_tokens": TOKENS,
                "temperature": 0,
                "ignore_eos": True,
            }
            response = client.post("/v1/chat/completions", json=body)
            response.raise_for_status()
            tokens += int(response.json()["usage"]["completion_tokens"])
    return tokens


def memory_mib() -> float:
    """Memory of all engines and their replicas; what processes share counts once."""
    total = 0
    for process in psutil.process_iter(["cmdline"]):
        if " ".join(process.info["cmdline"] or ()).startswith(TITLES):
            total += process.memory_full_info().pss
    return total / 2**20


def table(figures: dict[str, dict[str, float]]) -> str:
    """The figures as a Markdown table."""
    lines = ["| engines | their memory, MiB | tokens/s |", "|---|---|---|"]
    lines += [
        f"| {name} | {of['memory_mib']:.0f} | {of['tokens_per_s']:.1f} |" for name, of in figures.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
