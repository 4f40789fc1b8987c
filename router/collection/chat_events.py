"""What an event of a chat stream holds: text, reasoning, usage, an error.

Endpoints differ in what they send where OpenAI's sends a text, an object or nothing; whatever holds an
answer is read, and nothing raises but an event that is no JSON object. Pure: text in, values out.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

DONE = "[DONE]"
"""Data of the last event of a stream."""
COUNTS = ("prompt_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True)
class ChatEvent:
    """The contents of one event."""

    text: str = ""
    reasoning: str = ""
    usage: dict[str, int] = field(default_factory=dict)
    """`prompt_tokens` and `completion_tokens`, as far as they are whole numbers from 0."""
    error: str | None = None
    logprobs: tuple[float, ...] = ()
    """One for each token of the event, as far as they are finite numbers."""
    finish_reason: str | None = None


def read_event(data: str) -> ChatEvent:
    """The contents of an event.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"an event that is not JSON: {data[:80]!r}") from error
    if not isinstance(event, dict):
        raise ValueError(f"an event that is not an object: {data[:80]!r}")
    deltas = list(_deltas(event))
    return ChatEvent(
        text="".join(text_of(delta.get("content")) for delta in deltas),
        # `reasoning` in vLLM, `reasoning_content` in its older versions and elsewhere.
        reasoning="".join(
            text_of(delta.get("reasoning")) or text_of(delta.get("reasoning_content")) for delta in deltas
        ),
        usage=_usage(event.get("usage")),
        error=_error(event.get("error")),
        logprobs=tuple(_logprobs(event)),
        finish_reason=next(
            (reason for choice in _choices(event) if isinstance(reason := choice.get("finish_reason"), str)),
            None,
        ),
    )


def text_of(content: Any) -> str:
    """A message's content as text: a text, or a list of parts of which some have a `text`."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(text_of(part.get("text") if isinstance(part, dict) else part) for part in content)
    return ""


def _choices(event: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            yield choice


def _deltas(event: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for choice in _choices(event):
        if isinstance(delta := choice.get("delta"), dict):
            yield delta


def _logprobs(event: Mapping[str, Any]) -> Iterator[float]:
    for choice in _choices(event):
        holder = choice.get("logprobs")
        content = holder.get("content") if isinstance(holder, dict) else None
        for token in content if isinstance(content, list) else ():
            value = token.get("logprob") if isinstance(token, dict) else None
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                yield float(value)


def _usage(usage: Any) -> dict[str, int]:
    if not isinstance(usage, dict):
        return {}
    counts = {name: usage.get(name) for name in COUNTS}
    return {
        name: value
        for name, value in counts.items()
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0
    }


def _error(error: Any) -> str | None:
    """An error's message; some endpoints send `"error": null` with every event."""
    if not error:
        return None
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or error)
