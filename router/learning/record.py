"""Records of the decision log: their schema, as dataclasses that are written to and read from JSON.

The one owner of the schema: the deployments write these records, `router.learning` reads them. Knows
neither files nor estimators.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter, ValidationError

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or its type; version 0 are records that name no version."""

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One call of one expert."""

    expert: str
    outcome: str
    seconds: Amount
    prompt_tokens: Count | None = None
    """Of a response that a plan read and did not return; those of the returned one are the request's."""
    completion_tokens: Count | None = None


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """What became of the plan that the decision chose."""

    name: str
    accepted: bool | None
    """`None` where it was not carried out."""
    result: str
    p_right: float | None = None
    """Probability that the members' answer is right; `None` where it was not judged."""
    p_accept: float | None = None
    """Probability of acceptance, as predicted before."""
    signals: Mapping[str, float | None] | None = None
    """What the answer was judged by."""
    cost_usd: Amount | None = None
    """Cost of all its calls, as predicted before."""


@dataclass(frozen=True, slots=True)
class ExplorationRecord:
    """The configured exploration under which a decision was made, enough to repeat its draw."""

    share: Probability
    quality_floor: Probability
    seed: int
    unit: str
    """What the draw was made for: the conversation, else the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """One request that was routed or named its expert, and how it ended.

    Records of an older version may lack each field but the request's id.
    """

    type: ClassVar[str] = "decision"
    texts: ClassVar[frozenset[str]] = frozenset({"query"})
    """Fields with text that people wrote; the log keeps them only where configured."""

    request_id: Annotated[str, Field(min_length=1)]
    client_request_id: str | None = None
    """The client's own id, where it sent one."""
    time: str = ""
    """Arrival, ISO 8601 in UTC."""
    kind: str = ""
    model: str = ""
    """As the request named it: an expert, a preset or `auto`."""
    stream: bool = False
    policy: str | None = None
    expert: str | None = None
    """The expert that responded; `None` where none did."""
    reason: str = ""
    ranking: tuple[str, ...] = ()
    scores: Mapping[str, float | None] | None = None
    """`None` where no policy scored the query."""
    costs_usd: Mapping[str, float | None] | None = None
    excluded: Mapping[str, str] | None = None
    unfamiliar: bool = False
    preferences: Mapping[str, Any] | None = None
    """What the request itself preferred; the preset is its `model`."""
    plan: PlanRecord | None = None
    """`None` where the decision chose an expert."""
    attempts: tuple[AttemptRecord, ...] = ()
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    usage_reported: bool | None = None
    """Whether the expert reported the tokens; else they are estimated."""
    cost_usd: Amount | None = None
    ttft_s: Amount | None = None
    latency_s: Amount | None = None
    outcome: str = ""
    """Status, or how the response ended: `broken`, `disconnected`."""
    code: str | None = None
    key: str | None = None
    """The key's id; `None` without keys."""
    propensities: Mapping[str, Probability] | None = None
    """Candidate → probability that this decision chose it, the draw included; `None` where unknown."""
    action: str | None = None
    """The candidate that the decision chose. Another expert responded where it differs from `expert`."""
    exploration: ExplorationRecord | None = None
    """`None` where the request could not be drawn: exploration is off, or it named an expert or a plan."""
    conversation: str | None = None
    """Hash that the turns of one conversation share; `None` where there is none."""
    sticky: bool | None = None
    """Whether experts with the conversation's prefix counted for it; `None` where time has no price."""
    load: Mapping[str, Mapping[str, float]] | None = None
    """Expert → the fields of its `ExpertLoad` as the decision saw it; `None` where time had no price."""
    arm: str | None = None
    """`canary` or `control` while a canary runs."""
    canary: str | None = None
    """Id of the canary, of which `arm` is a part."""
    encoder: str | None = None
    """First 12 hex digits of the SHA-256 of the encoder of `embedding`."""
    embedding: str | None = None
    """Base64 of half-precision floats; only where configured."""
    query: str | None = None

    @property
    def fell_back(self) -> bool:
        """Whether another expert than the chosen one responded. The action stays what was chosen."""
        return self.plan is None and None not in {self.action, self.expert} and self.action != self.expert

    def without_texts(self) -> "DecisionRecord":
        """The record without what people wrote."""
        return replace(self, query=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackRecord:
    """One rating of a response."""

    type: ClassVar[str] = "feedback"
    texts: ClassVar[frozenset[str]] = frozenset({"comment"})

    request_id: Annotated[str, Field(min_length=1)]
    time: str = ""
    expert: str | None = None
    quality: Annotated[float, Field(ge=0, le=1)]
    comment: str | None = None
    key: str | None = None

    def without_texts(self) -> "FeedbackRecord":
        """The record without what people wrote."""
        return replace(self, comment=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgementRecord:
    """One judged response of a sample that was drawn uniformly at random."""

    type: ClassVar[str] = "judgement"
    texts: ClassVar[frozenset[str]] = frozenset()

    request_id: Annotated[str, Field(min_length=1)]
    time: str = ""
    expert: str | None = None
    quality: Annotated[float, Field(ge=0, le=1)]
    judge: str = ""
    """The expert that judged, or the check: `exact`, `numeric`, …"""
    sampling_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Probability with which any response of the log was drawn into the sample."""

    def without_texts(self) -> "JudgementRecord":
        """The record itself: it holds nothing that people wrote."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowRecord:
    """Scores of a second policy for a query that another policy routed."""

    type: ClassVar[str] = "shadow"
    texts: ClassVar[frozenset[str]] = frozenset()

    request_id: Annotated[str, Field(min_length=1)]
    time: str = ""
    policy: Annotated[str, Field(min_length=1)]
    ranking: tuple[str, ...] = ()
    scores: Mapping[str, float | None]
    costs_usd: Mapping[str, float | None] | None = None

    def without_texts(self) -> "ShadowRecord":
        """The record itself: it holds nothing that people wrote."""
        return self


Record = DecisionRecord | FeedbackRecord | JudgementRecord | ShadowRecord


class NewerRecordError(Exception):
    """A record was written by a later version, so its fields may mean something else."""


def to_json(record: Record, *, with_texts: bool) -> dict[str, Any]:
    """A record as an object for `orjson`, which writes the dataclasses in it itself."""
    return {
        "type": record.type,
        "schema_version": SCHEMA_VERSION,
        **{
            field.name: getattr(record, field.name)
            for field in fields(record)
            if with_texts or field.name not in record.texts
        },
    }


def from_json(data: Mapping[str, Any]) -> Record | None:
    """A record of this version or an older one; `None` for what is no such record.

    Raises:
        NewerRecordError: a later version wrote it.
    """
    version = data.get("schema_version", 0)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise NewerRecordError(
            f"record has schema version {version}, this build reads up to {SCHEMA_VERSION}: upgrade it"
        )
    adapter = _ADAPTERS.get(str(data.get("type")))
    if adapter is None:
        return None
    try:
        return adapter.validate_python(data)
    except ValidationError:
        return None


_ADAPTERS: dict[str, TypeAdapter[Record]] = {
    kind.type: TypeAdapter(kind) for kind in (DecisionRecord, FeedbackRecord, JudgementRecord, ShadowRecord)
}
