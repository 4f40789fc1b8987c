"""Records of the decision log: their schema, as dataclasses that are written to and read from JSON.

The accounting makes them, `decision_log` writes them; `recent_answers` and `to-router outcomes` read them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or its type; version 0 are records that name no version."""

R = TypeVar("R")
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


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
    query: str | None = None

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


Record = DecisionRecord | FeedbackRecord


class RecordSink(Protocol):
    """Takes records; never blocks."""

    @property
    def active(self) -> bool:
        """Whether records are kept, so that making them is worth it."""
        ...

    def write(self, record: Record) -> None:
        """Keep a record, or drop and count it."""
        ...


class NoRecords:
    """A sink that drops all records."""

    active = False

    def write(self, record: Record) -> None:
        """Drop it."""


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
    kind = data.get("type")
    if kind == DecisionRecord.type:
        return _valid(_DECISION, data)
    return _valid(_FEEDBACK, data) if kind == FeedbackRecord.type else None


_DECISION: TypeAdapter[DecisionRecord] = TypeAdapter(DecisionRecord)
_FEEDBACK: TypeAdapter[FeedbackRecord] = TypeAdapter(FeedbackRecord)


def _valid(adapter: TypeAdapter[R], data: Mapping[str, Any]) -> R | None:
    """The record, where each field that it has is of its type and in its range; else `None`."""
    try:
        return adapter.validate_python(data)
    except ValidationError:
        return None
