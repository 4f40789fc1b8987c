"""Settings of a variant: what makes an expert different from others of the same engine.

They are part of an expert's settings in deployments/config.py. Pure pydantic: knows nothing of Ray.
"""

from typing import Annotated, Any

from pydantic import Field, field_validator

from deployments.contracts.variants import FIXED_FIELDS, Reasoning, Variant
from deployments.settings import Settings

AdapterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class VariantSettings(Settings):
    """What makes an expert a variant; without any of it, an expert is the model of its engine."""

    adapter: AdapterName | None = None
    """A variant: one of the application's `adapters`."""
    set: dict[str, Any] = Field(default_factory=dict)
    """A variant: fields of each request's body; objects are merged key by key."""
    system: Annotated[str, Field(min_length=1, max_length=100_000)] | None = None
    """A variant: text in front of each request's system prompt."""
    reasoning: Reasoning | None = None
    """A variant: effort of reasoning; `off` for none."""
    thinking_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """A variant: the most tokens of reasoning in a completion."""
    force: bool = False
    """Whether the variant's fields replace those that a caller sets; default: the caller's win."""

    @property
    def variant(self) -> Variant | None:
        """What makes it different from the model of its engine; `None` for that model itself."""
        variant = Variant(
            self.adapter, self.set, self.system, self.reasoning, self.thinking_tokens, self.force
        )
        return variant if variant.adapter is not None or variant.changes_bodies else None

    @field_validator("reasoning", mode="before")
    @classmethod
    def _off_is_a_word(cls, reasoning: Any) -> Any:
        # YAML 1.1 reads a bare `off` as false.
        return "off" if reasoning is False else reasoning

    @field_validator("set")
    @classmethod
    def _may_be_set(cls, fields: dict[str, Any]) -> dict[str, Any]:
        if fixed := sorted(FIXED_FIELDS & fields.keys()):
            raise ValueError(f"{', '.join(fixed)} cannot be set: it is read before an expert is chosen")
        if null := sorted(name for name, value in fields.items() if value is None):
            raise ValueError(f"{', '.join(null)} is null, which has no effect: remove it")
        return fields
