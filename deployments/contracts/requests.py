"""Read from a request's body what routing needs, and nothing more.

Pure: JSON in, a frozen `InferenceRequest` out. Everything that it does not name passes to the expert
unchanged. Knows the shapes of OpenAI's and Anthropic's endpoints; imports neither client.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from deployments.contracts.errors import BadRequest
from router.core import Preferences
from router.errors import PreferenceError

QUERY_CHARACTERS = 8_000
"""More than any sentence encoder's window: what lies beyond would be cut there."""
BYTES_PER_TOKEN = 4
"""A cautious estimate over languages and tokenizers; the expert itself counts exactly."""
TOKENS_PER_MESSAGE = 4
"""Role and separators of a chat template."""

Kind = Literal["chat", "completions", "responses", "messages", "embeddings", "tokenize"]
KINDS: Mapping[str, Kind] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/embeddings": "embeddings",
    "/tokenize": "tokenize",
}
MEDIA = frozenset(
    {
        "image", "image_url", "input_image", "image_embeds", "image_pil",
        "audio_url", "input_audio", "audio_embeds", "video_url", "video_embeds", "file", "input_file",
    }
)  # fmt: skip
"""Parts of a message, and fields of parts, that are more than text; engines fetch some of them by URL."""
DEEPEST_PART = 12
"""Media are looked for so deep in lists and parts; engines look at four levels."""
STREAMED = frozenset({"chat", "completions", "responses", "messages"})
"""Endpoints that know `stream`; the others ignore it."""
ROUTING_FIELDS = frozenset(
    {
        "cost_weight", "min_quality", "max_cost_usd", "max_ttft_ms", "experts", "exclude",
        "timeout_s", "fallback", "priority",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RoutingBlock:
    """The body's `routing` object, parsed."""

    preferences: Preferences = Preferences()
    experts: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    timeout_s: float | None = None
    fallback: bool | None = None
    priority: Literal["interactive", "batch"] = "interactive"


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What the ingress knows of a request: for routing, limits and accounting."""

    kind: Kind
    path: str
    model: str
    query: str
    prompt_tokens: int
    """Estimated, of all prompts together."""
    longest_tokens: int
    """Estimated, of the longest prompt: what has to fit a context window."""
    max_tokens: int | None
    stream: bool
    needs: frozenset[str]
    """Capabilities that an expert must have: `tools`, `vision`, `embeddings`."""
    routing: RoutingBlock
    body: Mapping[str, Any]
    """The whole body without `routing`; `model` is replaced when it is forwarded."""

    def body_for(self, model: str) -> bytes:
        """The body to forward to an expert that knows itself as `model`.

        Raises:
            BadRequest: it is nested too deeply to be written again.
        """
        try:
            return orjson.dumps({**self.body, "model": model})
        except orjson.JSONEncodeError as error:
            raise BadRequest(f"the body cannot be handed on: {error}", "invalid_json") from error


def parse(path: str, raw: bytes, *, max_messages: int) -> InferenceRequest:
    """Read a request's body.

    Raises:
        BadRequest: not JSON, not an object, a field that routing reads has the wrong type, or the
            `routing` block is off.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {error}", "invalid_json") from error
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be a JSON object, found {_type(body)}", "invalid_json")
    kind = KINDS[path]
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest(f"model must be a non-empty string, found {_type(model)}", "invalid_type", "model")
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest(f"stream must be true or false, found {_type(stream)}", "invalid_type", "stream")
    routing = _routing(body.pop("routing", None))
    turns = list(_turns(kind, body, max_messages))
    lengths = _batch(kind, body) or [
        sum(_tokens(text) for _, text in turns) + TOKENS_PER_MESSAGE * len(turns)
    ]
    return InferenceRequest(
        kind=kind,
        path=path,
        model=model,
        query=query_of(turns),
        prompt_tokens=sum(lengths),
        longest_tokens=max(lengths),
        max_tokens=_max_tokens(body),
        stream=bool(stream) and kind in STREAMED,
        needs=_needs(kind, body),
        routing=routing,
        body=body,
    )


def query_of(turns: list[tuple[str, str]]) -> str:
    """The text that a policy reads: the last user message, then what came before it.

    The last user message stands first, so that an encoder's window cuts the oldest context
    and never the question. What follows it (a tool loop) is not read, hence the same decision
    at every step of the loop.
    """
    last = max((i for i, (role, _) in enumerate(turns) if role == "user"), default=len(turns) - 1)
    if last < 0:
        return ""
    parts = [turns[last][1], *(text for _, text in reversed(turns[:last]))]
    return "\n".join(part for part in parts if part)[:QUERY_CHARACTERS]


def _turns(kind: Kind, body: Mapping[str, Any], max_messages: int) -> Iterator[tuple[str, str]]:
    """(role, text) of each turn, in order; refuses what no expert could read."""
    if kind == "chat" or (kind == "tokenize" and "messages" in body):
        yield from _messages(body.get("messages"), "messages", max_messages)
    elif kind == "messages":
        if body.get("system") is not None:
            yield "system", _text(body["system"], "system")
        yield from _messages(body.get("messages"), "messages", max_messages)
    elif kind == "responses":
        if isinstance(body.get("instructions"), str):
            yield "system", body["instructions"]
        given = body.get("input")
        if isinstance(given, str):
            yield "user", given
        else:
            yield from _messages(given, "input", max_messages)
    else:
        name = "input" if kind == "embeddings" else "prompt"
        given = body.get(name)
        if given is None or given == []:
            raise BadRequest(f"{name} is missing", "missing_field", name)
        yield "user", _prompt(given, name)


def _messages(messages: Any, name: str, max_messages: int) -> Iterator[tuple[str, str]]:
    if messages is None:
        raise BadRequest(f"{name} is missing", "missing_field", name)
    if not isinstance(messages, list) or not messages:
        raise BadRequest(f"{name} must be a non-empty list, found {_type(messages)}", "invalid_type", name)
    if len(messages) > max_messages:
        raise BadRequest(
            f"at most {max_messages} {name} are taken, found {len(messages)}", "too_many_messages", name
        )
    for index, message in enumerate(messages):
        where = f"{name}[{index}]"
        if not isinstance(message, dict):
            raise BadRequest(f"{where} must be an object, found {_type(message)}", "invalid_type", where)
        role = message.get("role", "tool" if name == "input" else None)
        if not isinstance(role, str):
            raise BadRequest(
                f"{where}.role must be a string, found {_type(role)}", "invalid_type", f"{where}.role"
            )
        text = _text(message.get("content"), f"{where}.content")
        # Anthropic's tool results come in user turns: harness, not the human's words.
        yield ("tool" if role == "user" and _only_tool_results(message.get("content")) else role), text


def _text(content: Any, where: str) -> str:
    """The text parts of a message's content."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest(
            f"{where} must be a string or a list of parts, found {_type(content)}", "invalid_type", where
        )
    texts = []
    for index, part in enumerate(content):
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, dict):
            raise BadRequest(
                f"{where}[{index}] must be an object, found {_type(part)}",
                "invalid_type",
                f"{where}[{index}]",
            )
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
    return "\n".join(texts)


def _only_tool_results(content: Any) -> bool:
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(part, dict) and part.get("type") == "tool_result" for part in content)
    )


def _prompt(given: Any, name: str) -> str:
    """Text of a prompt: a string, a list of strings, or token ids (which hold no text to read)."""
    if isinstance(given, str):
        return given
    if isinstance(given, list):
        return "\n".join(item for item in given if isinstance(item, str))
    raise BadRequest(f"{name} must be a string or a list, found {_type(given)}", "invalid_type", name)


def _batch(kind: Kind, body: Mapping[str, Any]) -> list[int] | None:
    """Token counts of each prompt where a body may hold several; `None` where it holds one text."""
    given = body.get("input" if kind == "embeddings" else "prompt")
    if kind not in {"completions", "embeddings"} or not isinstance(given, list):
        return None
    if all(isinstance(item, int) for item in given):
        return [len(given)]
    return [
        len(item) if isinstance(item, list) else _tokens(item) if isinstance(item, str) else 1
        for item in given
    ]


def _tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadRequest(f"{name} must be a whole number, found {_type(value)}", "invalid_type", name)
        if value < 0:
            raise BadRequest(f"{name} must be at least 0, found {value}", "invalid_value", name)
        return value
    return None


def _needs(kind: Kind, body: Mapping[str, Any]) -> frozenset[str]:
    needs = set()
    if body.get("tools"):
        needs.add("tools")
    if kind == "embeddings":
        needs.add("embeddings")
    if _has_media(body.get("messages")) or (kind == "responses" and _has_media(body.get("input"))):
        needs.add("vision")
    return frozenset(needs)


def _has_media(value: Any, depth: int = DEEPEST_PART) -> bool:
    """Whether messages hold more than text: by a part's type, or by a field that an engine reads anyway."""
    if depth == 0:
        return False
    if isinstance(value, list):
        return any(_has_media(item, depth - 1) for item in value)
    if not isinstance(value, dict):
        return False
    kind = value.get("type")
    return (
        (isinstance(kind, str) and kind in MEDIA)
        or not MEDIA.isdisjoint(value)
        or any(_has_media(value.get(field), depth - 1) for field in ("content", "output"))
    )


def _routing(block: Any) -> RoutingBlock:
    if block is None:
        return RoutingBlock()
    if not isinstance(block, dict):
        raise BadRequest(f"routing must be an object, found {_type(block)}", "invalid_type", "routing")
    if unknown := sorted(block.keys() - ROUTING_FIELDS):
        raise BadRequest(
            f"routing.{unknown[0]} is unknown; it takes {', '.join(sorted(ROUTING_FIELDS))}",
            "unknown_field",
            f"routing.{unknown[0]}",
        )
    numbers = {
        name: _number(block, name)
        for name in ("cost_weight", "min_quality", "max_cost_usd", "max_ttft_ms", "timeout_s")
    }
    timeout_s = numbers.pop("timeout_s")
    if timeout_s is not None and timeout_s <= 0:
        raise BadRequest(
            f"routing.timeout_s must be above 0, found {timeout_s}", "invalid_value", "routing.timeout_s"
        )
    try:
        preferences = Preferences(**numbers)
    except PreferenceError as error:
        raise BadRequest(f"routing: {error}", "invalid_value", "routing") from error
    fallback = block.get("fallback")
    if fallback is not None and not isinstance(fallback, bool):
        raise BadRequest(
            f"routing.fallback must be true or false, found {_type(fallback)}",
            "invalid_type",
            "routing.fallback",
        )
    priority = block.get("priority", "interactive")
    if priority not in ("interactive", "batch"):
        raise BadRequest(
            f"routing.priority must be 'interactive' or 'batch', found {str(priority)[:40]!r}",
            "invalid_value",
            "routing.priority",
        )
    return RoutingBlock(
        preferences=preferences,
        experts=_names(block, "experts"),
        exclude=_names(block, "exclude") or (),
        timeout_s=timeout_s,
        fallback=fallback,
        priority=priority,
    )


def _number(block: Mapping[str, Any], name: str) -> float | None:
    value = block.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadRequest(
            f"routing.{name} must be a number, found {_type(value)}", "invalid_type", f"routing.{name}"
        )
    return float(value)


def _names(block: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = block.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRequest(
            f"routing.{name} must be a list of expert names, found {_type(value)}",
            "invalid_type",
            f"routing.{name}",
        )
    return tuple(value)


def _type(value: Any) -> str:
    """A JSON value's type, as its sender calls it."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")
