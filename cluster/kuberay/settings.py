"""What a Kubernetes manifest needs beside serve_config.yaml: image, pod sizes, node selectors, storage.

A file of its own for each overlay, `cluster/kuberay/overlays/*/render.yaml`; unknown keys are refused.
"""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from deployments.settings import Settings, explain
from router.errors import RouterError

Positive = Annotated[float, Field(gt=0)]


class BadRenderSettings(RouterError):
    """The file beside the configuration is wrong."""


class PodSettings(Settings):
    """Pods of one worker group; what is left out is worked out from serve_config.yaml."""

    cpus: Positive | None = None
    memory_gib: Positive | None = None
    gpus: Annotated[int, Field(ge=1, le=64)] | None = None
    """GPUs of one pod. Left out: those of the largest replica that must lie on one node."""
    shm_gib: Positive = 2.0
    """Shared memory: Ray's object store; NCCL's buffers in pools with tensor parallelism."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of *Kubernetes* nodes, such as nvidia.com/gpu.product; Ray's labels come from the pool."""
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    idle_timeout_s: Annotated[int, Field(ge=0)] = 600
    """Seconds that an empty pod is kept: engines start slowly, GPUs cost whether they work or not."""
    spare: Annotated[int, Field(ge=0)] = 0
    """Pods beyond what the maxima of the replicas need."""


class RenderSettings(Settings):
    """Everything that the manifest says and serve_config.yaml does not."""

    name: str = "to-router"
    image: str = "to-router:cpu"
    image_pull_policy: str = "IfNotPresent"
    model_cache_claim: str = "to-router-models"
    """PersistentVolumeClaim, ReadWriteMany, with the weights of hub models."""
    hub_token_secret: str = "to-router-hub"  # noqa: S105 - the name of a Secret
    """Secret whose HF_TOKEN opens gated models; optional."""
    keys_secret: str = "to-router-keys"  # noqa: S105 - the name of a Secret
    """Secret whose entries are environment variables of ingress and router; optional."""
    redis_address: str = "to-router-redis:6379"
    redis_secret: str = "to-router-redis"  # noqa: S105 - the name of a Secret
    """Secret whose `password` opens Redis, in which the head keeps its state."""
    head: PodSettings = PodSettings(cpus=4, memory_gib=12)
    pools: dict[str, PodSettings] = Field(default_factory=dict)
    """By the name of the worker group; `to-router render kuberay` tells an unknown one."""


def read_settings(file: Path | None) -> RenderSettings:
    """The settings in a file, or the defaults.

    Raises:
        BadRenderSettings: the file cannot be read, or holds a wrong or unknown key.
    """
    if file is None:
        return RenderSettings()
    try:
        return RenderSettings.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except (OSError, yaml.YAMLError) as error:
        raise BadRenderSettings(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise BadRenderSettings(explain(error, str(file))) from error
