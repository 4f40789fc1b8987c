"""Pods of a RayService: the head's, and those of each worker group."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from cluster.kuberay.settings import PodSettings, RenderSettings
from cluster.kuberay.worker_groups import WorkerGroup
from deployments.settings import STATE_VARIABLE

IMAGE_ROOT = "/app"
STATE_FOLDER = f"{IMAGE_ROOT}/var"
"""Where counts of keys, the decision log and the last valid configuration are by default."""
ENGINE_STATE = "/models/to-router"
"""The same for pods with engines only: on the claim for weights, which they have."""
SCRATCH = "/tmp"  # noqa: S108 - an emptyDir of the pod
"""The only folder of the local disk that a container can write to: Ray's session, sockets, compile caches."""
LABEL = "to-router/group"
"""A label of our own on every pod, because the name of a RayService's RayCluster is generated."""
RAY_USER = 1000
DRAIN_MARGIN_S = 45
"""In addition to the longest response: it takes 30 s to drain a node."""
STOP_MARGIN_S = 30
"""From the end of the drain until Ray's processes have ended."""
LOG_FILE_BYTES = str(64 * 1024 * 1024)
LOG_FILES = "3"
"""Ray's own are 512 MiB and 5 for each process, which would fill the disk of a pod."""
RECONNECT_S = "600"
"""Seconds that workers wait for a restarting head."""
HEAD_PORTS = {
    "gcs-server": 6379, "dashboard": 8265, "client": 10001, "serve": 8000,
    "metrics": 8080, "as-metrics": 44217, "dash-metrics": 44227,
}  # fmt: skip
WORKER_PORTS = {"serve": 8000, "metrics": 8080}
LEAST_PRIVILEGE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def pod_labels(settings: RenderSettings, group: str | None = None) -> dict[str, str]:
    """Return the labels of the pods of one group, or those that all pods have."""
    return {
        "app.kubernetes.io/name": "to-router",
        "app.kubernetes.io/instance": settings.name,
        **({LABEL: group} if group else {}),
    }


def sizes(cpus: float, memory_gib: float, disk_gib: float, gpus: int = 0) -> dict[str, Any]:
    """Return equal requests and limits."""
    amounts: dict[str, Any] = {"memory": _mib(memory_gib), "ephemeral-storage": _mib(disk_gib)}
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    cpu = f"{round(cpus * 1000)}m" if cpus % 1 else str(int(cpus))
    return {"requests": {"cpu": cpu, **amounts}, "limits": {"cpu": cpu, **amounts}}


def _mib(gib: float) -> str:
    return f"{math.ceil(gib * 1024)}Mi"


def autoscaler() -> dict[str, Any]:
    """Return the options of the autoscaler, whose container is in the head's pod."""
    return {
        "version": "v2",
        "upscalingMode": "Default",
        "idleTimeoutSeconds": 300,
        "resources": sizes(0.5, 1.0, 1.0),
        "securityContext": dict(LEAST_PRIVILEGE),
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH}],
    }


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What pods take from the configuration beyond their pool."""

    port: int
    key_file: PurePosixPath | None
    """The file of API keys; `None` if every client is served."""
    longest_response_s: int
    """A pod that is deleted serves this long."""


def head_group(settings: RenderSettings, flags: Mapping[str, str], port: int) -> dict[str, Any]:
    """Return the head's group: no replica runs there."""
    container = _container("ray-head", settings, {**HEAD_PORTS, "serve": port}, flags)
    head = settings.head
    container["resources"] = sizes(head.cpus or 4, head.memory_gib or 12, head.disk_gib)
    return {
        "rayStartParams": {"dashboard-host": "0.0.0.0"},  # noqa: S104 - a pod's own network
        # No replica on the head: an expert that runs out of memory must not end it.
        "resources": {"CPU": "0", "GPU": "0"},
        "template": _template("head", container, settings, head, head.tolerations, DRAIN_MARGIN_S),
    }  # fmt: skip


def worker_group(
    group: WorkerGroup, settings: RenderSettings, flags: Mapping[str, str], around: Surroundings
) -> dict[str, Any]:
    """Return the worker group of one pool."""
    container = _container("ray-worker", settings, {**WORKER_PORTS, "serve": around.port}, flags)
    container["env"].append({"name": "RAY_gcs_rpc_server_reconnect_timeout_s", "value": RECONNECT_S})
    container["resources"] = sizes(group.cpus, group.memory_gib, group.pods.disk_gib, group.gpus)
    drain_s = max(math.ceil(group.grace_s), around.longest_response_s) + DRAIN_MARGIN_S
    command = [f"{IMAGE_ROOT}/cluster/kuberay/drain", str(drain_s)]
    container["lifecycle"] = {"preStop": {"exec": {"command": command}}}
    tolerations = list(group.pods.tolerations)
    if group.gpus and not any(t.get("key") == "nvidia.com/gpu" for t in tolerations):
        tolerations.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
    template = _template(group.name, container, settings, group.pods, tolerations, drain_s + STOP_MARGIN_S)
    if group.parts & {"Ingress", "Router"}:
        state = {"name": "state", "persistentVolumeClaim": {"claimName": settings.state_claim}}
        template["spec"]["volumes"].append(state)
        container["volumeMounts"].append({"name": "state", "mountPath": STATE_FOLDER})
    elif "Expert" in group.parts:
        # Copies of adapters: all pods of an engine must see them, and the image is read-only.
        container["env"].append({"name": STATE_VARIABLE, "value": ENGINE_STATE})
    if "Ingress" in group.parts:
        _give_ingress(template["spec"], settings, around)
    if "Expert" in group.parts:
        _give_environment(container, settings.hub_token_secret)
    if group.most_per_node is not None:
        # The replicas are to spread over Ray nodes, so those must not all be on one machine.
        template["spec"]["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": pod_labels(settings, group.name)},
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
        "HOME": SCRATCH,  # the image's own is read-only
        "PYTHONDONTWRITEBYTECODE": "1",
        "RAY_ROTATION_MAX_BYTES": LOG_FILE_BYTES,
        "RAY_ROTATION_BACKUP_COUNT": LOG_FILES,
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
        "securityContext": dict(LEAST_PRIVILEGE),
        "volumeMounts": [
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - where Ray keeps its objects
            {"name": "models", "mountPath": "/models"},
        ],
    }


def _give_environment(container: dict[str, Any], secret: str) -> None:
    container.setdefault("envFrom", []).append({"secretRef": {"name": secret, "optional": True}})


def _give_ingress(spec: dict[str, Any], settings: RenderSettings, around: Surroundings) -> None:
    """Give pods what only the ingress needs: the keys of clients and of providers."""
    (container,) = spec["containers"]
    _give_environment(container, settings.provider_secret)
    if around.key_file is not None:
        keys = {"name": "keys", "secret": {"secretName": settings.keys_secret, "defaultMode": 0o440}}
        spec["volumes"].append(keys)
        mount = {"name": "keys", "mountPath": str(around.key_file.parent), "readOnly": True}
        container["volumeMounts"].append(mount)


def _template(
    group: str,
    container: dict[str, Any],
    settings: RenderSettings,
    pods: PodSettings,
    tolerations: list[dict[str, Any]],
    grace_s: int,
) -> dict[str, Any]:
    return {
        "metadata": {"labels": pod_labels(settings, group)},
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
            **({"nodeSelector": dict(pods.node_selector)} if pods.node_selector else {}),
            **({"tolerations": tolerations} if tolerations else {}),
            "containers": [container],
            "volumes": [
                {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": _mib(pods.shm_gib)}},
                {"name": "scratch", "emptyDir": {"sizeLimit": _mib(pods.disk_gib)}},
                {"name": "models", "persistentVolumeClaim": {"claimName": settings.model_cache_claim}},
            ],
        },
    }
