"""Systems of a comparison: the command that starts each, and the address of its requests.

Knows command lines and configuration files of other systems and of this repository; imports none of them.
Everything listens on the loopback address.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "serve_config.yaml"
LITELLM = "litellm[proxy]==1.106.0"
ROUTELLM = "routellm[serve]==0.2.0"
ENGINE_EXPERT = "words"
ENGINE_ENVIRONMENT = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
"""Environment of every engine of a comparison."""
LITELLM_ENVIRONMENT = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no network access
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # loopback only
}
BATCHING_MS = (0, 50)
"""Ray Serve LLM's `stream_batching_interval_ms`: the best value for one client, and the default."""
MOST_PARALLEL = 512


@dataclass(frozen=True, slots=True)
class Server:
    """A process of the comparison."""

    name: str
    command: tuple[str, ...]
    ready: str
    """URL that returns 200 when it is ready."""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subject:
    """Address and model of one competitor."""

    name: str
    url: str
    model: str
    extra: tuple[tuple[str, Any], ...] = ()
    """Additional fields of every body."""


@dataclass(frozen=True, slots=True)
class Field:
    """Servers and subjects of one comparison; the first subject is the base of the ratios."""

    servers: tuple[Server, ...]
    subjects: tuple[Subject, ...]


def proxies(port: int, folder: Path, peers: Path, *, routellm: bool) -> Field:
    """Return proxies with the same immediate back end; ours routes, the others have no choice."""
    back_end = f"http://127.0.0.1:{port}"
    ours, litellm = f"http://127.0.0.1:{port + 1}", f"http://127.0.0.1:{port + 2}"
    graph = _write(folder / "ours.yaml", simulated_graph(back_end))
    proxy = _write(folder / "litellm.yaml", litellm_config(back_end))
    servers = [
        Server(
            "mock", (sys.executable, "-m", "load_tests.mock", "--port", str(port)), f"{back_end}/v1/models"
        ),
        _ours(graph, port + 1),
        Server(
            "litellm",
            (
                str(peers / "litellm" / "bin" / "litellm"),
                *(
                    "--config",
                    str(proxy),
                    "--host",
                    "127.0.0.1",
                    "--port",
                    str(port + 2),
                    "--num_workers",
                    "1",
                ),
            ),
            f"{litellm}/health/liveliness",
            LITELLM_ENVIRONMENT,
        ),
    ]
    subjects = [
        Subject("litellm", litellm, "mock"),
        Subject("ours", ours, "auto", (("routing", {"experts": ["atlas", "chat"]}),)),
        Subject(
            "ours, expert in the graph", ours, "auto", (("routing", {"experts": ["arithmetic", "words"]}),)
        ),
        Subject("mock, no proxy", back_end, "mock"),
    ]
    if routellm:
        url = f"http://127.0.0.1:{port + 3}"
        servers.append(_routellm(peers, back_end, port + 3))
        subjects.append(Subject("routellm", url, "router-random-0.5"))
    return Field(tuple(servers), tuple(subjects))


def engines(port: int, folder: Path) -> Field:
    """Return one pocket expert in vLLM's own server, in our graph and in Ray Serve LLM's ingress."""
    bare, ours = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
    graph = engine_graph()
    engine: dict[str, Any] = graph["applications"][1]["args"]["engine"]
    engine["dtype"] = "float32"  # left out, our expert's depends on the processor
    model = str(ROOT / graph["applications"][1]["args"]["model"])
    flags = ("max_model_len", "dtype", "max_num_seqs", "kv_cache_memory_bytes")
    command = (
        # The module of `vllm serve`; the command itself requires a distribution of that name, not vllm-cpu.
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model),
        *("--served-model-name", ENGINE_EXPERT, "--host", "127.0.0.1", "--port", str(port)),
        *(part for flag in flags for part in (f"--{flag.replace('_', '-')}", str(engine[flag]))),
        *("--enforce-eager", "--disable-uvicorn-access-log"),
    )
    for interval_ms in BATCHING_MS:
        graph["applications"].append(serve_llm(model, engine, interval_ms))
    file = _write(folder / "engines.yaml", graph)
    # Every token is visible: a pocket expert that is done repeats its end token.
    exact = (("ignore_eos", True), ("skip_special_tokens", False))
    return Field(
        (Server("bare", command, f"{bare}/health", ENGINE_ENVIRONMENT), _ours(file, port + 1)),
        (
            Subject("vLLM's own server", bare, ENGINE_EXPERT, exact),
            Subject("ours, routed", ours, "auto", exact),
            Subject("ours, expert named", ours, ENGINE_EXPERT, exact),
            *(
                Subject(f"Ray Serve LLM, {interval} ms", f"{ours}/llm{interval}", ENGINE_EXPERT, exact)
                for interval in BATCHING_MS
            ),
        ),
    )


def simulated_graph(back_end: str) -> dict[str, Any]:
    """Return our graph with one replica of each part: two simulated experts, two at `back_end` over HTTP."""
    graph = _graph()
    main, template = graph["applications"][0], graph["applications"][1]
    graph["applications"] = [main]
    experts = main["deployments"][0]["user_config"]["experts"] = {}
    for name in ("arithmetic", "words"):
        experts[name] = {"app": f"expert-{name}", "context_window": 8192}
        app = copy.deepcopy(template)
        app |= {"name": f"expert-{name}", "import_path": "deployments.app:build_simulated"}
        behaviour = {"ttft_ms": 0, "tokens_per_s": None, "slots": MOST_PARALLEL, "tokens": 4096}
        app["args"] = {"name": name, "behaviour": behaviour}
        app["deployments"] = [_one_expert()]
        graph["applications"].append(app)
    for name in ("atlas", "chat"):
        experts[name] = {"url": f"{back_end}/v1", "model": "mock", "context_window": 8192}
    return graph


def engine_graph() -> dict[str, Any]:
    """Return our graph with one replica of each part and one real expert, which `auto` always selects."""
    graph = _graph()
    main = graph["applications"][0]
    expert = next(app for app in graph["applications"] if app["name"] == f"expert-{ENGINE_EXPERT}")
    expert["deployments"] = [_one_expert()]
    main["deployments"][0]["user_config"]["experts"] = {ENGINE_EXPERT: {"app": f"expert-{ENGINE_EXPERT}"}}
    graph["applications"] = [main, expert]
    return graph


def serve_llm(model: str, engine: Mapping[str, Any], interval_ms: int) -> dict[str, Any]:
    """Return Ray Serve LLM's own application with its ingress, for the same cluster and transport."""
    config = {
        "model_loading_config": {"model_id": ENGINE_EXPERT, "model_source": model},
        "engine_kwargs": dict(engine),
        "accelerator_config": {"kind": "cpu"},
        "placement_group_config": {"bundles": [{"CPU": 0.1}]},
        "runtime_env": {"env_vars": ENGINE_ENVIRONMENT},
        "experimental_configs": {"stream_batching_interval_ms": interval_ms},
        "deployment_config": {
            "name": f"llm-{interval_ms}",
            "num_replicas": 1,
            "max_ongoing_requests": MOST_PARALLEL,
            "ray_actor_options": {"num_cpus": 0},
        },
        "log_engine_metrics": False,
    }
    ingress = {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0.1}}
    return {
        "name": f"serve-llm-{interval_ms}",
        "route_prefix": f"/llm{interval_ms}",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [config], "ingress_deployment_config": ingress},
    }


def litellm_config(back_end: str) -> dict[str, Any]:
    """Return the configuration of LiteLLM's proxy for `back_end`, without database and request logging."""
    upstream = {"model": "openai/mock", "api_base": f"{back_end}/v1", "api_key": "none"}
    return {
        "model_list": [{"model_name": "mock", "litellm_params": upstream}],
        "litellm_settings": {"telemetry": False, "num_retries": 0},
    }


def _routellm(peers: Path, back_end: str, port: int) -> Server:
    """Return RouteLLM's server with its cheapest router; its package installs CUDA libraries."""
    return Server(
        "routellm",
        (
            str(peers / "routellm" / "bin" / "python"),
            *("-m", "routellm.openai_server", "--routers", "random", "--port", str(port), "--workers", "1"),
            *("--strong-model", "openai/mock", "--weak-model", "openai/mock"),
            *("--base-url", f"{back_end}/v1", "--api-key", "none"),
        ),
        f"http://127.0.0.1:{port}/openapi.json",
        {"OPENAI_API_KEY": "none"},
    )


def _graph() -> dict[str, Any]:
    """Return the default configuration with one router replica."""
    graph: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    router = graph["applications"][0]["deployments"][1]
    del router["autoscaling_config"]
    router["num_replicas"] = 1
    return graph


def _one_expert() -> dict[str, Any]:
    scale = {"min_replicas": 1, "max_replicas": 1, "target_ongoing_requests": MOST_PARALLEL}
    return {"name": "Expert", "max_ongoing_requests": MOST_PARALLEL, "autoscaling_config": scale}


def _ours(config: Path, port: int) -> Server:
    log = config.with_suffix(".serve.log")
    command = (sys.executable, "-m", "cluster.local.run", "--config", str(config), "--port", str(port))
    return Server("ours", (*command, "--log", str(log)), f"http://127.0.0.1:{port}/ready")


def _write(file: Path, data: Mapping[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return file.resolve()
