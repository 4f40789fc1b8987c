"""Settings of an expert's application: its engine, where it runs, and its adapters.

Pure pydantic: knows nothing of Ray.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator, model_validator

from deployments.settings import Settings, resolve
from deployments.variant_settings import AdapterName

EXPERT_DEPLOYMENT = "Expert"
"""The deployment's name in every application of an expert."""

LORA_ARGUMENTS = frozenset({"max_loras", "max_lora_rank", "max_cpu_loras"})
"""Engine arguments of which each means that adapters may come."""
DEFAULT_LORA_RANK = 16
"""vLLM's `max_lora_rank` where it is not set."""
MAX_ADAPTERS = 256
"""Adapters of one application."""

ExpertName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$")]
Source = Annotated[str, Field(min_length=1)]
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
"""A label's name or value, by the rules of Kubernetes, which are Ray's too."""
LABEL_KEY = re.compile(rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{LABEL}")
LABEL_SELECTOR = re.compile(rf"!?{LABEL}|!?(?:in)?\({LABEL}(?:, ?{LABEL})*\)")
"""A value, or one of Ray's operators on several."""


def _label(pattern: re.Pattern[str]) -> AfterValidator:
    def checked(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(
                "a label has 1 to 63 letters, digits, '-', '_' or '.', and begins and ends with a letter "
                f"or digit; found {text!r:.80}"
            )
        return text

    return AfterValidator(checked)


class PoolArgs(Settings):
    """Where replicas may run: node labels, or a custom resource of the pool's nodes."""

    labels: dict[Annotated[str, _label(LABEL_KEY)], Annotated[str, _label(LABEL_SELECTOR)]] | None = None
    """Labels that a node must carry, such as `{pool: math}`."""
    resources: dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Or a custom resource that a replica takes a little of, such as `{pool_math: 0.001}`."""

    @model_validator(mode="after")
    def _one_way(self) -> "PoolArgs":
        if bool(self.labels) == bool(self.resources):
            raise ValueError("a pool is named by `labels` or by `resources`: set one of them")
        return self


class ExpertArgs(Settings):
    """`args` of an application `expert-<name>`."""

    name: ExpertName
    """What clients, policy and headers call it."""
    model: str
    """A folder (relative to the project's root), a hub id, or a bucket's `s3://`, `gs://` or `az://`."""
    pool: PoolArgs | None = None
    """The GPU pool, where its replicas may run; default: anywhere."""
    engine: dict[str, Any] = Field(default_factory=dict)
    """Engine arguments, as vLLM names them; without `dtype`, an engine on a CPU that cannot multiply 16-bit
    numbers computes in `float32`."""
    accelerator: str = "gpu"
    """`cpu`, `gpu`, or a type that Ray knows, such as `H100`."""
    gpus_per_worker: Annotated[float, Field(gt=0, le=1)] = 1.0
    """GPUs that Ray reserves for each engine worker; a fraction lets small experts share one."""
    cpus_per_worker: Annotated[float, Field(ge=0)] = 1.0
    """Processors that Ray reserves for each engine worker."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the replica and its engine."""

    @field_validator("engine")
    @classmethod
    def _ours(cls, engine: dict[str, Any]) -> dict[str, Any]:
        taken = sorted({"model", "served_model_name"} & engine.keys())
        if taken:
            raise ValueError(f"{', '.join(taken)} is set from `name` and `model`: remove it from `engine`")
        return engine

    @property
    def takes_adapters(self) -> bool:
        """Whether the engine starts with LoRA: by `enable_lora`, else where another argument of it is set."""
        enabled = self.engine.get("enable_lora")
        return bool(not LORA_ARGUMENTS.isdisjoint(self.engine) if enabled is None else enabled)

    @property
    def max_lora_rank(self) -> int:
        """The highest rank of an adapter that the engine takes."""
        return self._count("max_lora_rank", DEFAULT_LORA_RANK)

    @property
    def max_loras(self) -> int:
        """Adapters that one step of the engine serves."""
        return self._count("max_loras", 1)

    @property
    def adapter_slots(self) -> int:
        """Slots for adapters in the engine: `max_loras`, on a CPU twice that and one that stays empty.

        In a batch with adapters, vLLM's CPU kernels give the rows without one the adapter of the last slot
        (index −1, vLLM 0.32). A replaced adapter keeps its slot until its requests have ended.
        """
        most = self.max_loras
        return 2 * most + 1 if self.accelerator == "cpu" else most

    @property
    def most_adapters(self) -> int | None:
        """Adapters that may be in the engine at once, replaced ones included; `None` without a bound."""
        return self.adapter_slots - 1 if self.accelerator == "cpu" else None

    @property
    def workers(self) -> int:
        """Engine workers of one replica: tensor × pipeline parallel size."""
        return self._count("tensor_parallel_size", 1) * self._count("pipeline_parallel_size", 1)

    @property
    def model_source(self) -> str:
        """An absolute folder where there is one, else the hub id as given."""
        folder = resolve(self.model)
        return str(folder) if folder.is_dir() else self.model

    def _count(self, name: str, default: int) -> int:
        """An engine argument that counts something; null is its default."""
        value = self.engine.get(name)
        return default if value is None else int(value)


class ExpertConfig(Settings):
    """`user_config` of the deployment `Expert`."""

    adapters: dict[AdapterName, Annotated[str, Field(min_length=1)]] = Field(
        default_factory=dict, max_length=MAX_ADAPTERS
    )
    """Name → folder or hub id of a LoRA adapter; loaded and unloaded in place."""
