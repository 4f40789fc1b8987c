"""The default graph with simulated experts in place of its engines: for what ingress and router do."""

from typing import Any

import yaml

from cluster.local.run import ROOT
from cluster.packing import BUILD_EXPERT

TTFT_MS = 20.0
"""Of a simulated expert, which then writes its answer at once."""


def default_graph() -> dict[str, Any]:
    """The default graph as a Serve config."""
    graph: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text("utf-8"))
    return graph


def user_configs(graph: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """`user_config` of its Ingress and of its Router, to be changed in place."""
    return {part["name"]: part["user_config"] for part in graph["applications"][0]["deployments"]}


def simulate_experts(graph: dict[str, Any]) -> None:
    """Replace each engine by a simulated expert of the same name, which repeats the query."""
    behaviour = {"ttft_ms": TTFT_MS, "tokens_per_s": None, "slots": 64, "echo": True}
    for app in graph["applications"]:
        if app["import_path"] == BUILD_EXPERT:
            app["import_path"] = "deployments.app:build_simulated"
            app["args"] = {"name": app["args"]["name"], "behaviour": behaviour}
            app["deployments"] = [{"name": "Expert", "num_replicas": 1, "max_ongoing_requests": 1000}]
