"""A small configuration that `check` passes, for tests to break, and the policy that it names."""

import copy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "tests" / "router" / "fixtures" / "policy-schema-1"
EXPERTS = ("sums", "words", "large")
"""Those that the policy scores."""


def expert(name: str, **args: Any) -> dict[str, Any]:
    """The application of an expert on one GPU."""
    return {
        "name": f"expert-{name}",
        "route_prefix": None,
        "import_path": "deployments.app:build_expert",
        "args": {
            "name": name,
            "model": "cluster/local/experts/words",
            "engine": {"max_model_len": 512},
            "pool": {"labels": {"pool": name}},
            **args,
        },
        "deployments": [
            {
                "name": "Expert",
                "max_ongoing_requests": 64,
                "graceful_shutdown_timeout_s": 600,
                "autoscaling_config": {
                    "min_replicas": 1,
                    "max_replicas": 2,
                    "target_ongoing_requests": 32,
                },
            }
        ],
    }


def good() -> dict[str, Any]:
    """A fresh copy."""
    application = {
        "name": "to-router",
        "route_prefix": "/",
        "import_path": "deployments.app:build_app",
        "args": {"router": {"pool": {"labels": {"pool": "ingress"}}}, "ingress": {"num_cpus": 1.0}},
        "deployments": [
            {
                "name": "Ingress",
                "num_replicas": 1,
                "max_ongoing_requests": 10000,
                "graceful_shutdown_timeout_s": 600,
                "user_config": {"experts": {name: {"app": f"expert-{name}"} for name in EXPERTS}},
            },
            {
                "name": "Router",
                "num_replicas": 1,
                "max_ongoing_requests": 10000,
                "user_config": {
                    "policy": str(POLICY),
                    "prices": {name: {"input": 0.1, "output": 0.2} for name in EXPERTS},
                },
            },
        ],
    }
    return copy.deepcopy(
        {
            "proxy_location": "EveryNode",
            "http_options": {"host": "127.0.0.1", "port": 8000},
            "applications": [application, *(expert(name) for name in EXPERTS)],
        }
    )


def written(config: Any, folder: Path) -> Path:
    """The configuration as a file."""
    file = folder / "serve_config.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return file
