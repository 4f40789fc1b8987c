"""Settings of a Kubernetes manifest beyond serve_config.yaml: image, pod sizes, node selectors, storage.

Each overlay has its own file, `cluster/kuberay/overlays/*/render.yaml`; unknown keys are rejected.
"""

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, ValidationError

from deployments.settings import Settings
from router.errors import RouterError
from router.validation import explain

Positive = Annotated[float, Field(gt=0)]


def _name(pattern: str, rule: str) -> AfterValidator:
    def checked(name: str) -> str:
        if not re.fullmatch(pattern, name):
            raise ValueError(f"Kubernetes takes {rule}")
        return name

    return AfterValidator(checked)


ServiceName = Annotated[
    str, _name(r"[a-z]([a-z0-9-]{0,45}[a-z0-9])?", "1 to 47 small letters, digits or '-', first a letter")
]
"""KubeRay derives names of clusters and services from it, which Kubernetes limits to 63 characters."""
ObjectName = Annotated[
    str, _name(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "1 to 253 small letters, digits, '-' or '.'")
]


class BadRenderSettings(RouterError):
    """The settings file is invalid."""


class PodSettings(Settings):
    """Pods of one worker group; missing values are derived from serve_config.yaml."""

    cpus: Positive | None = None
    memory_gib: Positive | None = None
    gpus: Annotated[int, Field(ge=1, le=64)] | None = None
    """GPUs of one pod. Default: those of the largest replica that must run on one node."""
    shm_gib: Positive = 2.0
    """Shared memory: Ray's object store; NCCL's buffers in pools with tensor parallelism."""
    disk_gib: Positive = 20.0
    """Disk of the node: Ray's session and logs, spilled objects, compile caches; more ends a pod."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of *Kubernetes* nodes, such as nvidia.com/gpu.product; Ray's labels come from the pool."""
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    idle_timeout_s: Annotated[int, Field(ge=0)] = 600
    """Seconds before an empty pod is removed: engines start slowly, but idle GPUs cost money."""
    spare: Annotated[int, Field(ge=0)] = 0
    """Pods in addition to those that the maximum of replicas needs."""


class RenderSettings(Settings):
    """Everything in the manifest that is not in serve_config.yaml."""

    name: ServiceName = "to-router"
    image: str = "to-router:cpu"
    image_pull_policy: str = "IfNotPresent"
    model_cache_claim: ObjectName = "to-router-models"
    """PersistentVolumeClaim, ReadWriteMany, for the weights of hub models."""
    hub_token_secret: ObjectName = "to-router-hub"  # noqa: S105 - the name of a Secret
    """Secret with the HF_TOKEN for gated models; for pods with engines only; optional."""
    keys_secret: ObjectName = "to-router-keys"  # noqa: S105 - the name of a Secret
    """Secret with the file of API keys, under the file's own name; mounted for the ingress only."""
    provider_secret: ObjectName = "to-router-providers"  # noqa: S105 - the name of a Secret
    """Secret with the environment variables that `key_env` names; for the ingress only; optional."""
    state_claim: ObjectName = "to-router-state"
    """PersistentVolumeClaim, ReadWriteMany, for what ingress and router keep: counts of keys, the log."""
    redis_address: str = "to-router-redis:6379"
    redis_secret: ObjectName = "to-router-redis"  # noqa: S105 - the name of a Secret
    """Secret with the `password` of Redis, which holds the head's state."""
    head: PodSettings = PodSettings(cpus=4, memory_gib=12)
    pools: dict[str, PodSettings] = Field(default_factory=dict)
    """By the name of the worker group; an unknown name is an error."""


def read_settings(file: Path | None) -> RenderSettings:
    """Read the settings in a file, or return the defaults.

    Raises:
        BadRenderSettings: the file cannot be read, or has an invalid or unknown key.
    """
    if file is None:
        return RenderSettings()
    try:
        return RenderSettings.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except (OSError, yaml.YAMLError) as error:
        raise BadRenderSettings(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise BadRenderSettings(explain(error, str(file))) from error
