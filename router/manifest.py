"""The facts of a saved policy as one typed model: the schema of `manifest.json`.

Knows names, types and ranges; nothing of arrays, files and their hashes, which `artifact` checks.
"""

from dataclasses import asdict, fields
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)

from router.core import Preferences
from router.costs import CostFacts
from router.encoders import EncoderSpec
from router.errors import ManifestError, PreferenceError
from router.experts import ExpertProfile
from router.plans.plan_set import PlanSet
from router.validation import Count, Name, Number, explain

TRAINING_FACTS = ("data_sha256", "seed", "metrics")
"""Facts of the training that are at the manifest's top, for programs that only read it."""

LATER_PREFERENCES = frozenset({"latency_weight", "max_latency_ms"})
"""Preferences that older versions do not know: a policy that sets none of them is readable there."""


class MethodFacts(BaseModel):
    """A routing method: its registered name and its constructor's arguments."""

    name: Name
    params: dict[str, Any]


class CalibrationFacts(BaseModel):
    """The kind of a calibration; its knots are arrays."""

    kind: Literal["isotonic"]
    knots: Count


class WaitFacts(BaseModel):
    """The kind of the model of times to first token; its weights are arrays."""

    kind: Literal["log_ridge"]
    unit: Literal["ms"]


class Manifest(BaseModel):
    """What `manifest.json` holds beside its format, version and list of files.

    Keys that this build does not know are ignored: a change of meaning raises the schema version.
    """

    model_config = ConfigDict(frozen=True)

    router: MethodFacts
    encoder: EncoderSpec
    pool: list[ExpertProfile] = Field(min_length=1)
    """In column order."""
    cost_model: CostFacts
    calibration: CalibrationFacts | None
    wait_model: WaitFacts | None = None
    latency_model: WaitFacts | None = None
    plans: list[dict[str, Any]] | None = None
    """Plans with the kind of their acceptance models, in column order behind the pool; from schema 3."""
    static_ranking: list[str]
    preferences: dict[str, Number | None]
    preferences_without_plans: dict[str, Number | None] | None = None
    data_sha256: str | None
    seed: StrictInt | None
    metrics: dict[str, Any] | None
    training: dict[str, Any]

    @field_validator("preferences", "preferences_without_plans")
    @classmethod
    def _are_preferences(cls, value: dict[str, float | None] | None) -> dict[str, float | None] | None:
        if value is None:
            return None
        known = [item.name for item in fields(Preferences)]
        if unknown := sorted(value.keys() - set(known)):
            raise ValueError(f"{unknown[0]!r} is no preference; known: {', '.join(known)}")
        try:
            Preferences(**value)
        except PreferenceError as error:
            raise ValueError(str(error)) from error
        return value

    @model_validator(mode="after")
    def _ranks_its_pool(self) -> Self:
        if sorted(self.static_ranking) != sorted(expert.name for expert in self.pool):
            raise ValueError("static_ranking must hold each expert of the pool once, and no other")
        return self


def read_manifest(facts: dict[str, Any]) -> Manifest:
    """The facts of a manifest, checked.

    Raises:
        ManifestError: a key is missing, or a value has another type or range than the schema's.
    """
    try:
        return Manifest.model_validate(facts)
    except ValidationError as error:
        raise ManifestError(
            f"the manifest is invalid: {explain(error)}. Train or copy the policy again"
        ) from error


def stored_preferences(preferences: Preferences) -> dict[str, float | None]:
    """Preferences for a manifest; those of later versions only where they are set."""
    return {
        name: value
        for name, value in asdict(preferences).items()
        if value is not None or name not in LATER_PREFERENCES
    }


def facts_of_plans(plans: PlanSet | None, without: Preferences | None, *, timed: bool) -> dict[str, Any]:
    """Facts that only a policy with plans has: without them the manifest is as it was before plans.

    Args:
        plans: of the policy.
        without: the default preference of requests that allow no plan.
        timed: whether the policy knows how long answers take.
    """
    if plans is None:
        return {}
    return {
        "latency_model": {"kind": "log_ridge", "unit": "ms"} if timed else None,
        "plans": plans.to_json(),
        "preferences_without_plans": None if without is None else stored_preferences(without),
    }
