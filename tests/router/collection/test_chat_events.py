"""Whatever an endpoint sends in an event, its answer is read and nothing raises."""

import json
from typing import Any

import pytest

from router.collection.chat_events import ChatEvent, read_event

PART = {"type": "text", "text": "b"}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"choices": [{"delta": {"content": "a"}}]}, ChatEvent("a")),
        ({"choices": [{"delta": {"content": ["a", PART, {"type": "image"}, 7]}}]}, ChatEvent("ab")),
        ({"choices": [{"delta": {"content": None, "reasoning": "r"}}]}, ChatEvent("", "r")),
        ({"choices": [{"delta": {"reasoning_content": [PART]}}]}, ChatEvent("", "b")),
        ({"choices": [{"delta": None}, None, "x", 7, {}]}, ChatEvent()),
        ({"choices": {"delta": 1}, "error": None, "usage": None}, ChatEvent()),
        ({"choices": None, "usage": "12 tokens", "error": ""}, ChatEvent()),
        ({"usage": {"prompt_tokens": 7, "completion_tokens": "3"}}, ChatEvent(usage={"prompt_tokens": 7})),
        ({"usage": {"prompt_tokens": -7, "completion_tokens": True}}, ChatEvent()),
        ({"error": {"message": "gone"}}, ChatEvent(error="gone")),
        ({"error": "gone"}, ChatEvent(error="gone")),
        ({"error": {"code": 5}}, ChatEvent(error="{'code': 5}")),
        ({"error": ["gone"]}, ChatEvent(error="['gone']")),
    ],
)
def test_events_are_read_in_any_shape(event: dict[str, Any], expected: ChatEvent) -> None:
    assert read_event(json.dumps(event)) == expected


@pytest.mark.parametrize("data", ["", "x", "[1]", "null", '"a"', "[" * 100_000])
def test_data_that_is_no_object_is_a_value_error(data: str) -> None:
    with pytest.raises(ValueError, match="an event that is not"):
        read_event(data)
