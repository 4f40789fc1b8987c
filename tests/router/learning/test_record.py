"""Records of the log: written and read back, older and newer versions."""

from typing import Any

import orjson
import pytest

from router.learning.record import (
    SCHEMA_VERSION,
    AttemptRecord,
    DecisionRecord,
    ExplorationRecord,
    FeedbackRecord,
    JudgementRecord,
    NewerRecordError,
    Record,
    ShadowRecord,
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
    propensities={"math": 0.99, "words": 0.01},
    action="math",
    exploration=ExplorationRecord(0.02, 0.9, 7, "1"),
    query="hello",
)
JUDGEMENT = JudgementRecord(request_id="1", expert="math", quality=0.5, judge="large", sampling_rate=0.1)
SHADOW = ShadowRecord(request_id="1", policy="0123456789ab", ranking=("math",), scores={"math": 0.5})
FEEDBACK = FeedbackRecord(request_id="1", expert="math", quality=0.5, comment="good")


@pytest.mark.parametrize("record", [DECISION, FEEDBACK, JUDGEMENT, SHADOW], ids=lambda record: record.type)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    data = orjson.loads(orjson.dumps(to_json(record, with_texts=True)))

    assert from_json(data) == record
    assert (data["type"], data["schema_version"]) == (record.type, SCHEMA_VERSION)


@pytest.mark.parametrize("record", [DECISION, FEEDBACK, JUDGEMENT, SHADOW], ids=lambda record: record.type)
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


def test_a_fallback_is_flagged_and_keeps_the_chosen_action() -> None:
    record = DecisionRecord(request_id="1", action="math", expert="words")

    assert record.fell_back
    assert not DECISION.fell_back
    assert not DecisionRecord(request_id="1", action="math", expert=None).fell_back
