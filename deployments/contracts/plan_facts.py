"""What decides whether a plan may respond to a request, read from its body while it is parsed.

Pure: values in, a frozen value out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

TOOL_RESULTS = frozenset({"tool_result", "function_call_output"})
"""Types of message parts and items that contain the result of a tool."""


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What a plan must know of a request."""

    has_logprobs: bool
    """Whether the client requests log-probabilities itself."""
    has_tool_results: bool
    temperature: float | None
    has_seed: bool
    requires_form: bool
    """Whether the answer must have a form: JSON, or calls of tools."""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Read a body."""
        logprobs, temperature = body.get("logprobs"), body.get("temperature")
        is_number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        return cls(
            has_logprobs=(logprobs is not None and logprobs is not False) or bool(body.get("top_logprobs")),
            has_tool_results=_has_tool_results(body.get("messages")) or _has_tool_results(body.get("input")),
            temperature=float(temperature) if is_number and temperature is not None else None,
            has_seed=body.get("seed") is not None,
            requires_form=bool(body.get("tools")) or body.get("response_format") is not None,
        )


def _has_tool_results(messages: Any) -> bool:
    if not isinstance(messages, list):
        return False
    for message in messages:
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        if message.get("role") in ("tool", "function") or _is_result(message):
            return True
        if any(isinstance(part, dict) and _is_result(part) for part in parts):
            return True
    return False


def _is_result(part: Mapping[str, Any]) -> bool:
    kind = part.get("type")
    return isinstance(kind, str) and kind in TOOL_RESULTS
