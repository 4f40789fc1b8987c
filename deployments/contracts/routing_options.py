"""The body's `routing` object: one model for the parser, the OpenAPI document and the documentation.

`PreferenceFields` also defines the presets of the configuration. `router.core.Preferences` has the same
names and checks their ranges.
"""

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, Strict, ValidationError, model_validator

from deployments.contracts.errors import BadRequest, ErrorCode
from deployments.contracts.schemas import validator
from deployments.contracts.validation import bad_request, json_type
from deployments.settings import Settings
from router.core import Preferences
from router.errors import PreferenceError

PREFERENCES = tuple(field.name for field in fields(Preferences))
Number = Annotated[float, Field(json_schema_extra={"minimum": 0})]
Fraction = Annotated[float, Field(json_schema_extra={"minimum": 0, "maximum": 1})]
MAX_NAMES = 1024
"""Names in an allow or deny list; it is compared with every expert."""
Names = Annotated[tuple[str, ...], Strict(strict=False), Field(max_length=MAX_NAMES)]
"""A JSON list; strict pydantic takes only tuples."""


class PreferenceFields(Settings):
    """How quality, cost and latency are weighed."""

    cost_weight: Number | None = None
    """Utility is score − `cost_weight` × cost ÷ the most expensive eligible cost; 0 is best quality."""
    min_quality: Fraction | None = None
    """The cheapest expert whose score is at least this fraction of the best eligible score; 0 to 1."""
    max_cost_usd: Number | None = None
    """Excludes experts with a higher expected cost."""
    max_ttft_ms: Number | None = None
    """Excludes experts with a longer expected time to first token."""
    latency_weight: Number | None = None
    """Score that each second until the end of the answer takes off the utility; 0.01 is a point a second."""
    max_latency_ms: Number | None = None
    """Excludes experts with a longer expected time to the end of the answer."""

    @model_validator(mode="after")
    def _in_range(self) -> "PreferenceFields":
        try:
            self.as_preferences()
        except PreferenceError as error:
            raise ValueError(str(error)) from error
        return self

    def as_preferences(self) -> Preferences:
        """The same values for the router.

        Raises:
            PreferenceError: a value is out of range, or two preferences exclude each other.
        """
        return Preferences(**{name: getattr(self, name) for name in PREFERENCES})


class AnswerCheck(Settings):
    """A check of the caller that an answer must pass before a plan accepts it; one of its fields."""

    model_config = ConfigDict(strict=True)

    regex: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A regular expression that the answer contains a match of; without lookaround and back references."""
    json_schema: dict[str, Any] | None = None
    """A JSON schema that the answer, as JSON, is valid against; without `$ref`."""

    @model_validator(mode="after")
    def _one(self) -> "AnswerCheck":
        if (self.regex is None) == (self.json_schema is None):
            raise ValueError("give one of regex and json_schema")
        validator(self.json_schema or {"type": "string", "pattern": self.regex})
        return self


class RoutingOptions(PreferenceFields):
    """What a request may say of its routing."""

    model_config = ConfigDict(strict=True)

    experts: Names | None = None
    """Only these experts, and of plans only these, where it names some."""
    exclude: Annotated[Names, BeforeValidator(lambda value: () if value is None else value)] = ()
    """Not these experts and plans."""
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    """Deadline of the whole request in seconds; default: `request_timeout_s`."""
    fallback: bool | None = None
    """Whether another expert may be tried; default: true for `auto` and presets, false for a named expert."""
    priority: Literal["interactive", "batch"] = "interactive"
    """Order in the queue: `interactive` before `batch`."""
    plans: bool | None = None
    """Whether a plan, which may call several experts, may respond; default: true for `auto` and presets."""
    max_calls: Annotated[int, Field(ge=1)] | None = None
    """Excludes plans that may call experts more often than this; each sample of a vote counts."""
    explore: bool | None = None
    """Whether the expert may be drawn at random, for the configured share; default: true for `auto`."""
    check: AnswerCheck | None = None
    """What an answer must look like before a plan accepts it."""


DEFAULT = RoutingOptions()


def parse_routing(block: Any) -> RoutingOptions:
    """Read the `routing` object of a body.

    Raises:
        BadRequest: it is no object, or a field of it is unknown, of the wrong type or out of range.
    """
    if block is None:
        return DEFAULT
    if not isinstance(block, dict):
        raise BadRequest(
            f"routing must be an object, found {json_type(block)}", ErrorCode.INVALID_TYPE, "routing"
        )
    try:
        return RoutingOptions.model_validate(block)
    except ValidationError as error:
        raise bad_request(error, "routing.", list(RoutingOptions.model_fields)) from error
