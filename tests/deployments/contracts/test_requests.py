"""What routing reads of a body, and that it reads nothing else."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.contracts.endpoints import ENDPOINTS
from deployments.contracts.errors import ApiError
from deployments.contracts.requests import InferenceRequest, parse


def ask(body: object, path: str = "/v1/chat/completions") -> InferenceRequest:
    return parse(path, orjson.dumps(body), max_messages=50)


def test_the_query_is_the_text_of_the_last_user_message() -> None:
    read = ask(
        {
            "model": "auto",
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "first"},
                {"role": "assistant", "content": "answer"},
                {"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "image_url"}]},
            ],
        }
    )

    assert read.query == "hello"
    assert read.needs == {"vision"}


def test_a_tool_loop_reads_the_same_query_at_every_step() -> None:
    start = [{"role": "user", "content": "add 1 and 2"}]
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    later = [*start, call, {"role": "tool", "content": "3", "tool_call_id": "1"}]

    first, second = (ask({"model": "auto", "messages": turns}) for turns in (start, later))
    assert second.query == first.query
    assert second.tokens_to_query == first.tokens_to_query < second.prompt_tokens


def test_anthropic_tool_results_are_harness_not_words() -> None:
    start = [{"role": "user", "content": "add 1 and 2"}]
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "add", "input": {}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "3"}]}
    path = "/v1/messages"

    assert ask({"model": "auto", "messages": [*start, call, result]}, path).query == "add 1 and 2"


@pytest.mark.parametrize(
    ("path", "body", "query"),
    [
        ("/v1/completions", {"prompt": ["a", "b"]}, "a\nb"),
        ("/v1/completions", {"prompt": [1, 2, 3]}, ""),
        ("/v1/responses", {"input": "hello", "instructions": "brief"}, "hello"),
        ("/v1/responses", {"input": [{"role": "user", "content": "hello"}]}, "hello"),
        (
            "/v1/messages",
            {"system": "brief", "messages": [{"role": "user", "content": "hello"}]},
            "hello",
        ),
        ("/v1/embeddings", {"input": "hello"}, "hello"),
        ("/tokenize", {"messages": [{"role": "user", "content": "hello"}]}, "hello"),
    ],
)
def test_every_endpoint_has_its_query(path: str, body: dict[str, object], query: str) -> None:
    assert ask({"model": "auto", **body}, path).query == query


def test_routing_is_taken_out_and_the_rest_is_kept() -> None:
    read = ask({"model": "auto", "messages": [{"role": "user", "content": "x"}], "routing": {}, "seed": 3})

    assert orjson.loads(read.body_for("words")) == {
        "model": "words",
        "messages": [{"role": "user", "content": "x"}],
        "seed": 3,
    }


def test_too_many_messages_are_rejected() -> None:
    with pytest.raises(ApiError, match="at most 50 messages"):
        ask({"model": "auto", "messages": [{"role": "user", "content": "x"}] * 51})


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["model", "messages", "prompt", "input", "stream", "routing", "max_tokens", "tools", "system"]
)


@given(st.sampled_from(sorted(ENDPOINTS)), st.dictionaries(FIELDS, JSON) | JSON)
def test_any_json_is_read_or_rejected_in_the_envelope(path: str, body: object) -> None:
    try:
        read = parse(path, orjson.dumps(body), max_messages=50)
    except ApiError:
        return
    assert isinstance(read.query, str)
    assert read.prompt_tokens >= 0
    assert "routing" not in orjson.loads(read.body_for("x"))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_rejected(raw: bytes) -> None:
    with pytest.raises(ApiError):
        parse("/v1/chat/completions", raw, max_messages=50)
