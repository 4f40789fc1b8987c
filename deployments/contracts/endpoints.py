"""One table of the endpoints that experts serve: where the query is, how a stream ends, where usage is.

The parser, the OpenAPI document, the relay, the accounting and the simulated expert read it. Pure data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["chat", "completions", "responses", "messages", "count_tokens", "embeddings", "tokenize"]
Form = Literal["messages", "input", "prompts", "prompt"]
"""How a body contains its query; `contracts.requests` has a reader for each.

`messages`: a list of messages. `input`: a text or a list of messages. `prompts`: one prompt or a list
of them, texts or token ids. `prompt`: one prompt, or `messages` instead.
"""
DONE_LINE = b"data: [DONE]"
"""Last line of a stream of OpenAI's older endpoints."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint that an expert serves."""

    path: str
    kind: Kind
    query_field: str
    """Field of the body that contains the query."""
    form: Form
    system_field: str | None = None
    """Field of the body that contains the system prompt, where it is no message."""
    streams: bool = False
    """Whether `stream` has an effect; where it has none, the field is ignored."""
    last_lines: tuple[bytes, ...] = (DONE_LINE,)
    """Lines of which one is in a stream's last event."""
    frames: int = 0
    """Events of a stream that carry no token."""
    usage_in: str | None = None
    """Object of an event that contains `usage` where the event itself does not."""
    bounds: tuple[str, ...] = ()
    """Fields of which each bounds a completion's tokens; none where an engine completes nothing."""
    binary: bytes | None = None
    """Content type of a response that is not JSON, where a request can choose one."""
    copies: tuple[str, ...] = ()
    """Fields with the number of completions for each prompt."""
    usage_option: bool = False
    """Whether a stream reports its usage only where `stream_options.include_usage` is set."""
    needs: frozenset[str] = frozenset()
    """Capabilities that an expert must have for it."""
    cache_salt: bool = False
    """Whether engines read a salt of their prefix cache from the body."""
    runs_model: bool = True
    """Whether a request costs tokens; the tokenizer alone costs none."""
    summary: str = ""
    """What it does, where its kind does not say it."""
    evidence: frozenset[str] = frozenset()
    """What plans can read of its answers: `text`, `logprobs`, and `samples` (one request for several)."""


ENDPOINTS: Mapping[str, Endpoint] = {
    endpoint.path: endpoint
    for endpoint in (
        # Frames of chat: the role, and `[DONE]`.
        Endpoint(
            "/v1/chat/completions",
            "chat",
            "messages",
            "messages",
            streams=True,
            frames=2,
            bounds=("max_completion_tokens", "max_tokens"),
            copies=("n",),
            usage_option=True,
            cache_salt=True,
            evidence=frozenset({"text", "logprobs", "samples"}),
        ),
        Endpoint(
            "/v1/completions",
            "completions",
            "prompt",
            "prompts",
            streams=True,
            frames=1,
            bounds=("max_tokens",),
            copies=("n", "best_of"),
            usage_option=True,
            cache_salt=True,
            evidence=frozenset({"text", "logprobs", "samples"}),
        ),
        Endpoint(
            "/v1/responses",
            "responses",
            "input",
            "input",
            system_field="instructions",
            streams=True,
            last_lines=(
                b"event: response.completed",
                b"event: response.incomplete",
                b"event: response.failed",
                DONE_LINE,
            ),
            usage_in="response",
            bounds=("max_output_tokens",),
            cache_salt=True,
            evidence=frozenset({"text"}),
        ),
        Endpoint(
            "/v1/messages",
            "messages",
            "messages",
            "messages",
            system_field="system",
            streams=True,
            last_lines=(b"event: message_stop", b"event: error", DONE_LINE),
            usage_in="message",
            bounds=("max_tokens",),
            cache_salt=True,
            evidence=frozenset({"text"}),
        ),
        # Anthropic's clients count before they send.
        Endpoint(
            "/v1/messages/count_tokens",
            "count_tokens",
            "messages",
            "messages",
            system_field="system",
            runs_model=False,
            summary="Tokens of a body of `/v1/messages`; for `auto` the largest count of all experts",
        ),
        # vLLM's `encoding_format: bytes`.
        Endpoint(
            "/v1/embeddings",
            "embeddings",
            "input",
            "prompts",
            binary=b"application/octet-stream",
            needs=frozenset({"embeddings"}),
            cache_salt=True,
        ),
        Endpoint("/tokenize", "tokenize", "prompt", "prompt", runs_model=False),
    )
}
"""Path → endpoint."""

_MESSAGES: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "role": {"type": "string"},
            "content": {"type": ["string", "null", "array"], "items": {"type": "object"}},
        },
        "required": ["role"],
    },
}
SCHEMAS: Mapping[Form, dict[str, Any]] = {
    "messages": _MESSAGES,
    "input": {"type": "string"},
    "prompts": {"type": ["string", "array"], "minItems": 1, "items": {"type": "string"}},
    "prompt": {"type": "string"},
}
"""JSON schema of a query's form, as `/openapi.json` publishes it."""
