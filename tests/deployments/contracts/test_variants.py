"""A caller's body as a variant's, by endpoint: its fields, its reasoning, and which of two values wins."""

from typing import Any

import pytest

from deployments.contracts.endpoints import ENDPOINTS
from deployments.contracts.variants import REASONING, Variant, body_of, unmapped

CHAT = ENDPOINTS["/v1/chat/completions"]
COMPLETIONS = ENDPOINTS["/v1/completions"]
RESPONSES = ENDPOINTS["/v1/responses"]
MESSAGES = ENDPOINTS["/v1/messages"]
TOKENIZE = ENDPOINTS["/tokenize"]
HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("path", "off", "high"),
    [
        ("/v1/chat/completions", {"reasoning_effort": "none"}, {"reasoning_effort": "high"}),
        ("/v1/responses", {"reasoning": {"effort": "none"}}, {"reasoning": {"effort": "high"}}),
        ("/v1/messages", {"thinking": {"type": "disabled"}}, {"output_config": {"effort": "high"}}),
        (
            "/v1/messages/count_tokens",
            {"thinking": {"type": "disabled"}},
            {"output_config": {"effort": "high"}},
        ),
        (
            "/tokenize",
            {"chat_template_kwargs": {"reasoning_effort": "none", "enable_thinking": False}},
            {"chat_template_kwargs": {"reasoning_effort": "high", "enable_thinking": True}},
        ),
    ],
)
def test_reasoning_becomes_each_endpoints_own_field(
    path: str, off: dict[str, Any], high: dict[str, Any]
) -> None:
    endpoint = ENDPOINTS[path]

    assert body_of(Variant(reasoning="off"), endpoint, {"a": 1}) == {"a": 1, **off}
    assert body_of(Variant(reasoning="high"), endpoint, {"a": 1}) == {"a": 1, **high}


def test_every_field_of_reasoning_is_one_that_vllm_reads() -> None:
    anthropic = pytest.importorskip("vllm.entrypoints.anthropic.protocol")
    chat = pytest.importorskip("vllm.entrypoints.openai.chat_completion.protocol")
    responses = pytest.importorskip("vllm.entrypoints.openai.responses.protocol")
    tokenize = pytest.importorskip("vllm.entrypoints.serve.tokenize.protocol")
    models = {
        "chat": chat.ChatCompletionRequest,
        "responses": responses.ResponsesRequest,
        "messages": anthropic.AnthropicMessagesRequest,
        "count_tokens": anthropic.AnthropicCountTokensRequest,
        "tokenize": tokenize.TokenizeChatRequest,
    }
    assert models.keys() == REASONING.keys()
    for kind, model in models.items():
        bodies = [REASONING[kind].off, *map(REASONING[kind].effort, ("low", "medium", "high"))]
        query = {"input": "hello"} if kind == "responses" else {"messages": HELLO}
        for body in bodies:
            model.model_validate({"model": "m", "max_tokens": 8, **query, **body})

            assert set(body) <= set(model.model_fields)


@pytest.mark.parametrize(
    ("variant", "path", "reason"),
    [
        (Variant(reasoning="low"), "/v1/completions", "no field for reasoning"),
        (Variant(reasoning="off"), "/v1/embeddings", "no field for reasoning"),
        (Variant(thinking_tokens=2000), "/v1/responses", "no field for thinking_tokens"),
        (Variant(thinking_tokens=100), "/v1/messages", "1024 and more"),
        (Variant(system="Be brief."), "/v1/completions", "no system prompt"),
    ],
)
def test_an_endpoint_without_a_mapping_cannot_express_it(variant: Variant, path: str, reason: str) -> None:
    assert reason in (unmapped(variant, ENDPOINTS[path]) or "")


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.kind)
def test_an_adapter_or_fields_alone_fit_every_endpoint(endpoint: Any) -> None:
    assert unmapped(Variant(adapter="sql", fields={"temperature": 0}), endpoint) is None


def test_the_callers_fields_win_unless_forced() -> None:
    body = {"temperature": 1, "extra": {"a": 1}}
    fields = {"temperature": 0, "extra": {"a": 2, "b": 3}}

    assert body_of(Variant(fields=fields), CHAT, body) == {"temperature": 1, "extra": {"a": 1, "b": 3}}
    assert body_of(Variant(fields=fields, force=True), CHAT, body) == fields
    assert body == {"temperature": 1, "extra": {"a": 1}}


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/v1/chat/completions", {"reasoning_effort": "low"}),
        ("/v1/chat/completions", {"chat_template_kwargs": {"enable_thinking": True}}),
        ("/v1/responses", {"reasoning": {"effort": "low"}}),
        ("/v1/messages", {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
        ("/v1/messages", {"output_config": {"effort": "low"}}),
    ],
)
def test_any_choice_of_reasoning_by_the_caller_wins(path: str, own: dict[str, Any]) -> None:
    variant = Variant(reasoning="off")

    assert body_of(variant, ENDPOINTS[path], own) == own


def test_forced_reasoning_removes_every_choice_of_the_caller() -> None:
    own = {"output_config": {"effort": "high", "format": None}, "thinking": {"type": "adaptive"}}
    forced = body_of(Variant(reasoning="off", force=True), MESSAGES, own)

    assert forced == {"output_config": {"format": None}, "thinking": {"type": "disabled"}}


def test_a_reasoning_summary_stays_beside_the_effort() -> None:
    body = {"reasoning": {"summary": "auto"}}

    assert body_of(Variant(reasoning="low"), RESPONSES, body) == {
        "reasoning": {"summary": "auto", "effort": "low"}
    }


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS], ids=["chat", "completions"])
def test_thinking_tokens_become_the_engines_budget(endpoint: Any) -> None:
    assert body_of(Variant(thinking_tokens=64), endpoint, {}) == {"thinking_token_budget": 64}


def test_a_budget_of_messages_is_left_out_where_max_tokens_is_no_larger() -> None:
    variant = Variant(thinking_tokens=2048)
    budget = {"thinking": {"type": "enabled", "budget_tokens": 2048}}

    assert body_of(variant, MESSAGES, {"max_tokens": 4096}) == {"max_tokens": 4096, **budget}
    assert body_of(variant, MESSAGES, {"max_tokens": 2048}) == {"max_tokens": 2048}


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/chat/completions", {"messages": HELLO}, {"role": "system", "content": "Be brief."}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "system", "content": "Speak German."}, *HELLO]},
            {"role": "system", "content": "Be brief.\n\nSpeak German."},
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "developer", "content": [{"type": "text", "text": "x"}]}, *HELLO]},
            {
                "role": "developer",
                "content": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "x"}],
            },
        ),
    ],
)
def test_system_text_precedes_the_callers_in_one_message(
    path: str, body: dict[str, Any], expected: dict[str, Any]
) -> None:
    changed = body_of(Variant(system="Be brief."), ENDPOINTS[path], body)

    assert changed["messages"] == [expected, *HELLO]


def test_system_text_precedes_the_field_of_the_endpoint() -> None:
    variant = Variant(system="Be brief.")

    assert body_of(variant, RESPONSES, {"input": "hi"})["instructions"] == "Be brief."
    assert body_of(variant, RESPONSES, {"instructions": "x"})["instructions"] == "Be brief.\n\nx"
    assert body_of(variant, MESSAGES, {"system": [{"type": "text", "text": "x"}]})["system"] == [
        {"type": "text", "text": "Be brief."},
        {"type": "text", "text": "x"},
    ]
    assert body_of(variant, TOKENIZE, {"prompt": "hi"}) == {"prompt": "hi"}
