"""A variant of a model: what makes an expert different from others of the same engine, and its bodies.

One table maps the effort of reasoning to each endpoint's own fields, as vLLM 0.32 reads them. Pure: values
in, values out; knows neither HTTP nor experts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from deployments.contracts.endpoints import Endpoint, Kind

Reasoning = Literal["off", "low", "medium", "high"]
Fields = Mapping[str, Any]

ADAPTER = b"x-adapter"
"""Header by which a replica learns the adapter of a request; empty for the model without one.

Where it is present, the replica itself sets `model`: only it knows under which name the adapter is loaded.
"""
ADAPTERS_PATH = "/adapters"
"""Where a replica reports its adapters: `{"adapters": {name: why it is not loaded, or null}, "replica": id}`.

The ingress alone calls it: it serves no client a path beside the API's.
"""
FIXED_FIELDS = frozenset(
    {
        "model", "messages", "prompt", "input", "system", "instructions", "routing", "stream",
        "stream_options", "cache_salt", "n", "best_of", "max_tokens", "max_completion_tokens",
        "max_output_tokens", "logprobs", "top_logprobs", "tools", "previous_response_id", "background",
        "request_id",
    }
)  # fmt: skip
"""Fields that a variant cannot set: they are read, counted or rejected before an expert is chosen."""
LEAST_MESSAGES_BUDGET = 1024
"""The smallest budget of thinking tokens that `/v1/messages` accepts."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What makes an expert different from the model of its engine."""

    adapter: str | None = None
    """Name of a LoRA adapter of the application."""
    fields: Fields = field(default_factory=dict)
    """Fields of the body; objects are merged key by key."""
    system: str | None = None
    """Text in front of the caller's system prompt."""
    reasoning: Reasoning | None = None
    """Effort of reasoning."""
    thinking_tokens: int | None = None
    """The most tokens of reasoning in a completion."""
    force: bool = False
    """Whether its fields replace the caller's."""

    @property
    def changes_bodies(self) -> bool:
        """Whether a body differs by more than `model`."""
        return bool(
            self.fields or self.system is not None or self.reasoning or self.thinking_tokens is not None
        )


@dataclass(frozen=True, slots=True)
class ReasoningFields:
    """How an endpoint is given the effort of reasoning."""

    off: Fields
    effort: Callable[[str], Fields]
    """Fields for an effort of `low`, `medium` or `high`."""
    own: tuple[str, ...]
    """Paths in a body of which each is the caller's own choice of reasoning."""


_TEMPLATE = (
    "chat_template_kwargs.enable_thinking",
    "chat_template_kwargs.thinking",
    "chat_template_kwargs.reasoning_effort",
)
_MESSAGES = ReasoningFields(
    off={"thinking": {"type": "disabled"}},
    effort=lambda effort: {"output_config": {"effort": effort}},
    own=("thinking", "output_config.effort", *_TEMPLATE),
)
REASONING: Mapping[Kind, ReasoningFields] = {
    # An effort also switches thinking on in templates that know `enable_thinking`, and `none` off.
    "chat": ReasoningFields(
        off={"reasoning_effort": "none"},
        effort=lambda effort: {"reasoning_effort": effort},
        own=("reasoning_effort", *_TEMPLATE),
    ),
    "responses": ReasoningFields(
        off={"reasoning": {"effort": "none"}},
        effort=lambda effort: {"reasoning": {"effort": effort}},
        own=("reasoning.effort", *_TEMPLATE),
    ),
    "messages": _MESSAGES,
    "count_tokens": _MESSAGES,
    # It has no field of its own: what the chat endpoint derives for the template is given here.
    "tokenize": ReasoningFields(
        off={"chat_template_kwargs": {"reasoning_effort": "none", "enable_thinking": False}},
        effort=lambda effort: {"chat_template_kwargs": {"reasoning_effort": effort, "enable_thinking": True}},
        own=_TEMPLATE,
    ),
}
"""Kind of endpoint → its fields for reasoning; an endpoint without an entry has none."""
THINKING_BUDGET: frozenset[Kind] = frozenset({"chat", "completions", "messages", "count_tokens", "tokenize"})
"""Kinds of endpoints that bound the tokens of reasoning, or make no completion."""
SYSTEM_PROMPT: frozenset[Kind] = frozenset({"chat", "responses", "messages", "count_tokens", "tokenize"})
"""Kinds of endpoints with a system prompt."""


def unmapped(variant: Variant, endpoint: Endpoint) -> str | None:
    """Why an endpoint cannot express a variant; `None` where it can."""
    if variant.reasoning is not None and endpoint.kind not in REASONING:
        return f"{endpoint.path} has no field for reasoning"
    if variant.thinking_tokens is not None:
        if endpoint.kind not in THINKING_BUDGET:
            return f"{endpoint.path} has no field for thinking_tokens"
        if endpoint.kind == "messages" and variant.thinking_tokens < LEAST_MESSAGES_BUDGET:
            return f"{endpoint.path} takes thinking_tokens of {LEAST_MESSAGES_BUDGET} and more"
    if variant.system is not None and endpoint.kind not in SYSTEM_PROMPT:
        return f"{endpoint.path} has no system prompt"
    return None


def body_of(variant: Variant, endpoint: Endpoint, body: Fields) -> dict[str, Any]:
    """A caller's body as the variant's; the caller's own fields win unless the variant forces its own.

    Its system prompt is no such field: the variant's text precedes the caller's in any case.

    Args:
        variant: the variant, which the endpoint can express.
        endpoint: the endpoint.
        body: the caller's body, which is not changed.
    """
    result = dict(body)
    if variant.reasoning is not None:
        table = REASONING[endpoint.kind]
        chosen = [path for path in table.own if _is_present(result, path)]
        if variant.force:
            for path in chosen:
                result = _without(result, path)
        if variant.force or not chosen:
            ours = table.off if variant.reasoning == "off" else table.effort(variant.reasoning)
            result = merged(result, ours, force=True)
    if variant.thinking_tokens is not None:
        result = _with_budget(result, endpoint, variant.thinking_tokens, force=variant.force)
    result = merged(result, variant.fields, force=variant.force)
    return result if variant.system is None else _with_system(result, endpoint, variant.system)


def merged(body: Fields, ours: Fields, *, force: bool) -> dict[str, Any]:
    """Two bodies in one, objects key by key.

    Args:
        body: the caller's.
        ours: the variant's.
        force: whether a value of ours replaces the caller's.
    """
    result = dict(body)
    for name, value in ours.items():
        known = result.get(name)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            result[name] = merged(known, value, force=force)
        elif force or known is None:
            result[name] = value
    return result


def _with_budget(body: dict[str, Any], endpoint: Endpoint, tokens: int, *, force: bool) -> dict[str, Any]:
    if endpoint.kind in {"chat", "completions"}:
        return merged(body, {"thinking_token_budget": tokens}, force=force)
    if endpoint.kind != "messages":
        return body
    if not force and _is_present(body, "thinking"):
        return body
    most = body.get("max_tokens")
    if isinstance(most, int) and most <= tokens:
        # vLLM rejects a budget that the completion's own bound makes needless.
        return _without(body, "thinking")
    return {**body, "thinking": {"type": "enabled", "budget_tokens": tokens}}


def _with_system(body: dict[str, Any], endpoint: Endpoint, text: str) -> dict[str, Any]:
    if endpoint.system_field is not None:
        return {**body, endpoint.system_field: _in_front(text, body.get(endpoint.system_field))}
    messages = body.get("messages")
    if not isinstance(messages, list):
        return body  # a bare prompt to tokenize
    first = messages[0] if messages else None
    if isinstance(first, Mapping) and first.get("role") in {"system", "developer"}:
        # One message: many chat templates accept no second one.
        joined = {**first, "content": _in_front(text, first.get("content"))}
        return {**body, "messages": [joined, *messages[1:]]}
    return {**body, "messages": [{"role": "system", "content": text}, *messages]}


def _in_front(text: str, content: Any) -> Any:
    """A system prompt with a text in front; it is a text or a list of parts."""
    if isinstance(content, list):
        return [{"type": "text", "text": text}, *content]
    return f"{text}\n\n{content}" if content else text


def _is_present(body: Fields, path: str) -> bool:
    outer, _, inner = path.partition(".")
    value = body.get(outer)
    if not inner:
        return value is not None
    return isinstance(value, Mapping) and value.get(inner) is not None


def _without(body: dict[str, Any], path: str) -> dict[str, Any]:
    outer, _, inner = path.partition(".")
    rest = {name: value for name, value in body.items() if name != outer}
    if inner and isinstance(body.get(outer), Mapping):
        rest[outer] = {name: value for name, value in body[outer].items() if name != inner}
    return rest
