"""Records of the log: written and read back, older and newer versions."""

from typing import Any

import orjson
import pytest

from deployments.observability.decision_record import (
    SCHEMA_VERSION,
    AttemptRecord,
    DecisionRecord,
    FeedbackRecord,
    NewerRecordError,
    Record,
    from_json,
    to_json,
)

DECISION = DecisionRecord(
    request_id="1",
    kind="chat",
    expert="math",
    ranking=("math", "words"),
    scores={"math": 0.5, "words": None},
    attempts=(AttemptRecord("math", "answered", 0.25),),
    query="hello",
)
FEEDBACK = FeedbackRecord(request_id="1", expert="math", quality=0.5, comment="good")


@pytest.mark.parametrize("record", [DECISION, FEEDBACK], ids=lambda record: record.type)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    data = orjson.loads(orjson.dumps(to_json(record, with_texts=True)))

    assert from_json(data) == record
    assert (data["type"], data["schema_version"]) == (record.type, SCHEMA_VERSION)


@pytest.mark.parametrize("record", [DECISION, FEEDBACK], ids=lambda record: record.type)
def test_texts_leave_no_key_behind(record: Record) -> None:
    data = orjson.loads(orjson.dumps(to_json(record, with_texts=False)))

    assert not record.texts & data.keys()
    assert from_json(data) == record.without_texts()


@pytest.mark.parametrize(
    "data",
    [
        {"type": "decision", "request_id": "1", "expert": "math", "key": "k"},
        {"type": "decision", "request_id": "1", "expert": "math", "key": "k", "a_field_of_then": 1},
    ],
)
def test_a_log_without_schema_version_still_reads(data: dict[str, Any]) -> None:
    assert from_json(data) == DecisionRecord(request_id="1", expert="math", key="k")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "unwritable", "why": "x"},
        {"type": "decision"},
        {"type": "decision", "request_id": "1", "attempts": [{"expert": "math"}]},
        {"type": "feedback", "request_id": "1"},
    ],
)
def test_what_is_no_record_is_left_out(data: dict[str, Any]) -> None:
    assert from_json(data) is None


def test_a_record_of_a_later_version_is_not_guessed_at() -> None:
    with pytest.raises(NewerRecordError, match="reads up to 1"):
        from_json({"type": "decision", "request_id": "1", "schema_version": SCHEMA_VERSION + 1})
