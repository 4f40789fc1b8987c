"""Which field an error names, and what every form of a body needs of an expert."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.contracts.errors import BadRequest
from deployments.contracts.requests import InferenceRequest, parse

CHAT = "/v1/chat/completions"
URL = "http://169.254.169.254/"
USER = {"role": "user", "content": "What is 2 + 2?"}


def read(body: object, path: str = CHAT) -> InferenceRequest:
    return parse(path, orjson.dumps(body), max_messages=8)


def chat(*messages: object, **fields: object) -> InferenceRequest:
    return read({"model": "auto", "messages": list(messages), **fields})


def test_a_responses_tool_loop_has_the_same_query_at_every_step() -> None:
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "1", "output": "42"}
    bodies = [{"model": "auto", "input": turns} for turns in ([USER], [USER, call, output])]

    assert {read(body, "/v1/responses").query for body in bodies} == {"What is 2 + 2?"}


def test_only_text_parts_are_read_and_an_image_needs_vision() -> None:
    parts = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}},
    ]
    ask = chat({"role": "user", "content": parts})

    assert ask.query == "what is this?"
    assert ask.needs == {"vision"}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": ""}},
        {"type": "audio_url", "audio_url": {"url": URL}},
        {"type": "video_url", "video_url": {"url": URL}},
        {"image_url": URL},
        {"type": "text", "text": "x", "uuid": "1", "image_url": URL},
        {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": URL}}]},
    ],
    ids=["audio", "audio url", "video url", "no type", "another type", "in a tool's result"],
)
def test_whatever_an_engine_would_fetch_needs_vision(part: dict[str, Any]) -> None:
    assert chat({"role": "user", "content": [part]}).needs == {"vision"}


def test_deep_parts_are_looked_through_only_so_far() -> None:
    depth = 100
    part = b'{"type":"x","content":[' * depth + b'{"type":"image"}' + b"]}" * depth
    body = b'{"model":"auto","messages":[{"role":"user","content":[' + part + b"]}]}"

    assert parse(CHAT, body, max_messages=8).needs == frozenset()


def test_token_ids_count_as_one_token_each() -> None:
    assert read({"model": "auto", "prompt": [7] * 500}, "/v1/completions").prompt_tokens == 500


def test_only_the_longest_of_many_prompts_has_to_fit_a_context_window() -> None:
    ask = read({"model": "auto", "input": ["x" * 400, "y" * 40, [1, 2]]}, "/v1/embeddings")

    assert ask.prompt_tokens == 112
    assert ask.longest_tokens == 100


def test_embeddings_never_stream_and_need_an_expert_for_them() -> None:
    ask = read({"model": "auto", "input": "text", "stream": True}, "/v1/embeddings")

    assert not ask.stream
    assert ask.needs == {"embeddings"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [3]}]}, "messages[0].content[0]"),
        ({"messages": [USER] * 9}, "messages"),
        ({"max_tokens": "3"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"routing": []}, "routing"),
        ({"routing": {"speed": 1}}, "routing.speed"),
        ({"routing": {"cost_weight": "0.3"}}, "routing.cost_weight"),
        ({"routing": {"cost_weight": True}}, "routing.cost_weight"),
        ({"routing": {"cost_weight": -1}}, "routing"),
        ({"routing": {"min_quality": 1.5}}, "routing"),
        ({"routing": {"cost_weight": 1, "min_quality": 0.5}}, "routing"),
        ({"routing": {"timeout_s": 0}}, "routing.timeout_s"),
        ({"routing": {"fallback": "no"}}, "routing.fallback"),
        ({"routing": {"priority": "urgent"}}, "routing.priority"),
        ({"routing": {"priority": []}}, "routing.priority"),
        ({"routing": {"experts": "small"}}, "routing.experts"),
        ({"routing": {"exclude": [1]}}, "routing.exclude"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read({"model": "auto", "messages": [USER], **change})

    assert caught.value.param == param
    assert caught.value.status == 400


def test_a_body_nested_too_deeply_to_be_written_again_is_rejected() -> None:
    nested = b"[" * 400 + b"]" * 400
    body = b'{"model":"auto","messages":[{"role":"user"}],"x":' + nested + b"}"

    with pytest.raises(BadRequest):
        parse(CHAT, body, max_messages=8)


def test_of_a_repeated_field_the_last_counts_for_routing_and_for_the_expert() -> None:
    raw = b'{"model":"a","model":"b","messages":[{"role":"user","content":"x"}],"routing":1,"routing":{}}'
    ask = parse(CHAT, raw, max_messages=8)

    assert ask.model == "b"
    assert orjson.loads(ask.body_for("c"))["model"] == "c"


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    block=st.dictionaries(
        st.sampled_from(["cost_weight", "min_quality", "max_cost_usd", "timeout_s", "experts", "priority"]),
        anything,
    )
)
def test_any_routing_block_is_read_or_rejected_by_name(block: dict[str, object]) -> None:
    try:
        chat(USER, routing=block)
        named = "routing"
    except BadRequest as error:
        named = error.param or ""

    assert named.startswith("routing")
