"""A RayService, its disruption budgets and its monitors, made from serve_config.yaml so that they agree.

Pure: plain objects in, plain objects out. The rest of a deployment (Redis, storage, routes) does not
depend on the configuration and is in cluster/kuberay/base.
"""

import math
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from cluster.kuberay.settings import RenderSettings
from cluster.kuberay.worker_groups import WorkerGroup, worker_groups
from cluster.packing import demands
from cluster.transport import AUTH_MODE

RAY_VERSION = "2.60.0"
IMAGE_ROOT = "/app"
LABEL = "to-router/group"
"""A label of our own on every pod, because the name of a RayService's RayCluster is generated."""
RAY_USER = 1000
DRAIN_MARGIN_S = 45
"""In addition to Serve's grace period: it takes 30 s to drain a node."""
RECONNECT_S = "600"
"""Seconds that workers wait for a restarting head."""
HEAD_PORTS = {
    "gcs-server": 6379, "dashboard": 8265, "client": 10001, "serve": 8000,
    "metrics": 8080, "as-metrics": 44217, "dash-metrics": 44227,
}  # fmt: skip
WORKER_PORTS = {"serve": 8000, "metrics": 8080}


def render(
    config: Mapping[str, Any], settings: RenderSettings, flags: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return every object that depends on the configuration.

    Args:
        config: a serve_config.yaml that `check` passes.
        settings: image, pod sizes, storage.
        flags: the environment of the transport, for head and workers.
    """
    groups = worker_groups(demands(config), settings)
    # `authOptions` makes the operator set the mode and the token of every pod.
    flags = {name: value for name, value in flags.items() if name != AUTH_MODE}
    port = int((config.get("http_options") or {}).get("port", WORKER_PORTS["serve"]))
    service = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": settings.name, "labels": _labels(settings)},
        "spec": {
            "serveConfigV2": serve_config(config),
            # A change of pods builds a second cluster, waits for it, then switches over.
            "upgradeStrategy": {"type": "NewCluster"},
            "rayClusterDeletionDelaySeconds": 120,
            "excludeHeadPodFromServeSvc": True,
            "rayClusterConfig": {
                "rayVersion": _ray_version(),
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {
                    "version": "v2",
                    "upscalingMode": "Default",
                    "idleTimeoutSeconds": 300,
                    "resources": _sizes(0.5, 1.0),
                },
                "authOptions": {"mode": "token"},
                "gcsFaultToleranceOptions": {
                    "backend": "redis",
                    "redisAddress": settings.redis_address,
                    "redisPassword": {
                        "valueFrom": {"secretKeyRef": {"name": settings.redis_secret, "key": "password"}}
                    },
                },
                "headGroupSpec": _head(settings, flags, port),
                "workerGroupSpecs": [_worker(group, settings, flags, port) for group in groups],
            },
        },
    }
    budgets = [_budget("head", 1, settings)]
    # With a minimum of one pod, the budget delays the drain of a node: better than a missing expert.
    budgets += [_budget(g.name, max(g.low - 1, 1), settings) for g in groups if g.low]
    return [service, *budgets, *_monitors(settings)]


def serve_config(config: Mapping[str, Any]) -> str:
    """Return the configuration for the manifest: the same, but listening on the pod's own network."""
    http = {**(config.get("http_options") or {}), "host": "0.0.0.0"}  # noqa: S104 - a pod's own network
    return yaml.dump(
        {**config, "http_options": http}, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110
    )


def manifest(objects: list[dict[str, Any]], source: str) -> str:
    """Return the objects as YAML documents, with a header that names the source."""
    head = f"# Rendered by `to-router render kuberay {source}`: change that file, not this one.\n"
    return head + "---\n".join(
        yaml.dump(one, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110) for one in objects
    )


class _Plain(yaml.SafeDumper):
    """Multi-line texts as blocks and no anchors, for people and for kustomize."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)


def _ray_version() -> str:
    try:
        return version("ray")
    except PackageNotFoundError:
        return RAY_VERSION


def _labels(settings: RenderSettings, group: str | None = None) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "to-router",
        "app.kubernetes.io/instance": settings.name,
        **({LABEL: group} if group else {}),
    }


def _sizes(cpus: float, memory_gib: float, gpus: int = 0) -> dict[str, Any]:
    """Return equal requests and limits."""
    amounts: dict[str, Any] = {"memory": f"{math.ceil(memory_gib * 1024)}Mi"}
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    cpu = f"{round(cpus * 1000)}m" if cpus % 1 else str(int(cpus))
    return {"requests": {"cpu": cpu, **amounts}, "limits": {"cpu": cpu, **amounts}}


def _head(settings: RenderSettings, flags: Mapping[str, str], port: int) -> dict[str, Any]:
    container = _container("ray-head", settings, {**HEAD_PORTS, "serve": port}, flags)
    container["resources"] = _sizes(settings.head.cpus or 4, settings.head.memory_gib or 12)
    return {
        "rayStartParams": {"dashboard-host": "0.0.0.0"},  # noqa: S104 - a pod's own network
        # No replica on the head: an expert that runs out of memory must not end it.
        "resources": {"CPU": "0", "GPU": "0"},
        "template": _template("head", container, settings, settings.head.shm_gib, settings.head.node_selector,
                              settings.head.tolerations, DRAIN_MARGIN_S),
    }  # fmt: skip


def _worker(
    group: WorkerGroup, settings: RenderSettings, flags: Mapping[str, str], port: int
) -> dict[str, Any]:
    container = _container("ray-worker", settings, {**WORKER_PORTS, "serve": port}, flags)
    container["env"].append({"name": "RAY_gcs_rpc_server_reconnect_timeout_s", "value": RECONNECT_S})
    container["resources"] = _sizes(group.cpus, group.memory_gib, group.gpus)
    container["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/sh", "-c", "ray stop"]}}}
    tolerations = list(group.pods.tolerations)
    if group.gpus and not any(t.get("key") == "nvidia.com/gpu" for t in tolerations):
        tolerations.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
    template = _template(group.name, container, settings, group.pods.shm_gib, group.pods.node_selector,
                         tolerations, math.ceil(group.grace_s) + DRAIN_MARGIN_S)  # fmt: skip
    if group.most_per_node is not None:
        # The replicas are to spread over Ray nodes, so those must not all be on one machine.
        template["spec"]["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _labels(settings, group.name)},
            }
        ]
    resources = {"CPU": f"{group.cpus:g}", **({"GPU": str(group.gpus)} if group.gpus else {})}
    resources |= {name: f"{amount:g}" for name, amount in group.custom.items()}
    return {
        "groupName": group.name,
        "replicas": group.low,
        "minReplicas": group.low,
        "maxReplicas": group.high,
        "idleTimeoutSeconds": group.pods.idle_timeout_s,
        "numOfHosts": 1,
        **({"labels": dict(group.labels)} if group.labels else {}),
        "rayStartParams": {},
        "resources": resources,
        "template": template,
    }


def _container(
    name: str, settings: RenderSettings, ports: Mapping[str, int], flags: Mapping[str, str]
) -> dict[str, Any]:
    own = {
        "TO_ROUTER_ROOT": IMAGE_ROOT,
        "HF_HOME": "/models",
        # Compiled graphs are stored beside the weights, so that a second pod starts faster.
        "VLLM_CACHE_ROOT": "/models/vllm",
    }
    return {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
        "env": [{"name": key, "value": value} for key, value in {**own, **flags}.items()],
        "envFrom": [
            {"secretRef": {"name": secret, "optional": True}}
            for secret in (settings.hub_token_secret, settings.keys_secret)
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - where Ray keeps its objects
            {"name": "models", "mountPath": "/models"},
        ],
    }


def _template(
    group: str,
    container: dict[str, Any],
    settings: RenderSettings,
    shm_gib: float,
    node_selector: Mapping[str, str],
    tolerations: list[dict[str, Any]],
    grace_s: int,
) -> dict[str, Any]:
    return {
        "metadata": {"labels": _labels(settings, group)},
        "spec": {
            "priorityClassName": "to-router-head" if group == "head" else "to-router-worker",
            "terminationGracePeriodSeconds": grace_s,
            "automountServiceAccountToken": group == "head",  # the autoscaler beside the head needs it
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": RAY_USER,
                "runAsGroup": 100,
                "fsGroup": 100,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **({"nodeSelector": dict(node_selector)} if node_selector else {}),
            **({"tolerations": tolerations} if tolerations else {}),
            "containers": [container],
            "volumes": [
                {
                    "name": "shared-memory",
                    "emptyDir": {"medium": "Memory", "sizeLimit": f"{math.ceil(shm_gib * 1024)}Mi"},
                },
                {"name": "models", "persistentVolumeClaim": {"claimName": settings.model_cache_claim}},
            ],
        },
    }


def _budget(group: str, available: int, settings: RenderSettings) -> dict[str, Any]:
    # KubeRay's pods have no scale subresource, so only a number of available pods is allowed here.
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": f"{settings.name}-{group}", "labels": _labels(settings, group)},
        "spec": {"minAvailable": available, "selector": {"matchLabels": _labels(settings, group)}},
    }


def _monitors(settings: RenderSettings) -> list[dict[str, Any]]:
    ray = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {
            "name": f"{settings.name}-ray",
            "labels": {**_labels(settings), "release": "prometheus"},
        },
        "spec": {
            "selector": {"matchLabels": _labels(settings)},
            "podMetricsEndpoints": [
                {"port": port, "interval": "15s"} for port in ("metrics", "as-metrics", "dash-metrics")
            ],
        },
    }
    return [ray]


def read_config(file: Path) -> dict[str, Any]:
    """Read a configuration that `check` passes."""
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    return dict(data)
