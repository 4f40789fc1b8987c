"""The answers in a response: their texts, log-probabilities and ends, for plans that judge them.

Also the way back: a request for log-probabilities or samples, and a response without what the client did
not request. Pure: values and bytes in, values and bytes out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from deployments.contracts.endpoints import Endpoint
from deployments.contracts.sse import EVENT


@dataclass(slots=True)
class Answer:
    """One answer of an expert, as far as it was seen."""

    text: str = ""
    """Without reasoning and tool calls."""
    logprobs: list[float] = field(default_factory=list)
    """Natural logarithms, one for each token; empty where the expert reported none."""
    finish_reason: str | None = None
    calls: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Position → name and arguments of a tool call."""


Answers = dict[int, Answer]
"""Index of a choice → its answer."""


def answers_of(body: bytes, endpoint: Endpoint) -> Answers:
    """The answers in a non-streaming response; empty where it has none that can be read."""
    answers: Answers = {}
    data = _object(body)
    if data is not None:
        READERS[endpoint.kind](answers, data, "message")
    return answers


class StreamedAnswers:
    """The answers of a stream, while its events come.

    Args:
        endpoint: of the request.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._read = READERS[endpoint.kind]
        self.answers: Answers = {}

    def saw(self, events: bytes) -> None:
        """Read whole events."""
        for line in events.split(b"\n"):
            if line.startswith(b"data:") and (event := _object(line[5:])) is not None:
                self._read(self.answers, event, "delta")


def logprobs_field(endpoint: Endpoint) -> dict[str, Any]:
    """The field of a body that requests the log-probability of each token, and no alternatives."""
    return {"logprobs": True if endpoint.kind == "chat" else 0}


def without_logprobs(body: bytes) -> bytes:
    """A non-streaming response without log-probabilities, as it is where they were not requested."""
    data = _object(body)
    return body if data is None else orjson.dumps(_bare(data))


def events_without_logprobs(events: bytes) -> bytes:
    """Whole events without log-probabilities."""
    return _rewritten(events, _bare)


def only_choice(body: bytes, index: int, completion_tokens: int | None) -> bytes:
    """A non-streaming response with one of its choices, as if it had been the only one.

    Args:
        body: the response.
        index: of the choice.
        completion_tokens: of that choice; `None` where unknown.
    """
    data = _object(body)
    if data is None:
        return body
    kept = _chosen(data, index)
    return body if kept is None else orjson.dumps(_with_usage(kept, completion_tokens))


def only_choice_events(events: bytes, index: int, completion_tokens: int | None) -> bytes:
    """Whole events of one choice, as if it had been the only one."""

    def change(data: dict[str, Any]) -> dict[str, Any] | None:
        kept = _chosen(data, index)
        return None if kept is None else _with_usage(kept, completion_tokens)

    return _rewritten(events, change)


def _rewritten(events: bytes, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> bytes:
    """Events with their data changed; those for which `change` returns `None` are left out."""
    kept = []
    for event in EVENT.findall(events):
        data = _object(event[5:]) if event.startswith(b"data:") else None
        if data is None:
            kept.append(event)
        elif (changed := change(data)) is not None:
            kept.append(b"data: " + orjson.dumps(changed) + b"\n\n")
    return b"".join(kept)


def _bare(data: dict[str, Any]) -> dict[str, Any]:
    choices = data.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and "logprobs" in choice:
                choice["logprobs"] = None
    return data


def _chosen(data: dict[str, Any], index: int) -> dict[str, Any] | None:
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices:
        return data
    kept = [choice for choice in choices if isinstance(choice, dict) and choice.get("index") == index]
    return {**data, "choices": [{**choice, "index": 0} for choice in kept]} if kept else None


def _with_usage(data: dict[str, Any], completion_tokens: int | None) -> dict[str, Any]:
    usage = data.get("usage")
    if completion_tokens is None or not isinstance(usage, dict):
        return data
    total = usage.get("prompt_tokens", 0) + completion_tokens
    return {**data, "usage": {**usage, "completion_tokens": completion_tokens, "total_tokens": total}}


def _read_chat(answers: Answers, data: Mapping[str, Any], part: str) -> None:
    for choice in _dicts(data.get("choices")):
        answer = answers.setdefault(_index(choice), Answer())
        message = choice.get(part)
        if isinstance(message, dict):
            answer.text += _text(message.get("content"))
            for position, call in enumerate(_dicts(message.get("tool_calls"))):
                function = call.get("function")
                if isinstance(function, dict):
                    _add_call(answer, call.get("index", position), function)
        logprobs = choice.get("logprobs")
        entries = logprobs.get("content") if isinstance(logprobs, dict) else None
        answer.logprobs += [_number(entry.get("logprob")) for entry in _dicts(entries)]
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason


def _read_completions(answers: Answers, data: Mapping[str, Any], _: str) -> None:
    for choice in _dicts(data.get("choices")):
        answer = answers.setdefault(_index(choice), Answer())
        answer.text += _text(choice.get("text"))
        logprobs = choice.get("logprobs")
        values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
        answer.logprobs += [_number(value) for value in values] if isinstance(values, list) else []
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason


def _read_responses(answers: Answers, data: Mapping[str, Any], _: str) -> None:
    """A whole response, or the event that ends a stream and contains one: deltas say nothing more."""
    response = data.get("response", data)
    if not isinstance(response, dict) or response.get("status") not in {"completed", "incomplete"}:
        return
    answer = answers[0] = Answer(finish_reason="stop" if response["status"] == "completed" else "length")
    for position, item in enumerate(_dicts(response.get("output"))):
        for content in _dicts(item.get("content")):
            if content.get("type") == "output_text":
                answer.text += _text(content.get("text"))
        if item.get("type") == "function_call":
            _add_call(answer, position, item)


def _read_messages(answers: Answers, data: Mapping[str, Any], _: str) -> None:
    answer = answers.setdefault(0, Answer())
    blocks = [(position, block) for position, block in enumerate(_dicts(data.get("content")))]
    if isinstance(block := data.get("content_block"), dict):
        blocks.append((_index(data), block))
    for position, block in blocks:
        if block.get("type") == "text":
            answer.text += _text(block.get("text"))
        elif block.get("type") == "tool_use":
            arguments = orjson.dumps(block["input"]).decode() if block.get("input") else ""
            _add_call(answer, position, {"name": block.get("name"), "arguments": arguments})
    delta = data.get("delta")
    change = delta if isinstance(delta, dict) else {}
    answer.text += _text(change.get("text"))
    if "partial_json" in change:
        _add_call(answer, _index(data), {"arguments": change["partial_json"]})
    answer.finish_reason = data.get("stop_reason") or change.get("stop_reason") or answer.finish_reason


READERS: Mapping[str, Callable[[Answers, Mapping[str, Any], str], None]] = {
    "chat": _read_chat,
    "completions": _read_completions,
    "responses": _read_responses,
    "messages": _read_messages,
}
"""Kind of an endpoint → the reader of its bodies and events."""


def _add_call(answer: Answer, position: Any, function: Mapping[str, Any]) -> None:
    at = position if isinstance(position, int) else len(answer.calls)
    name, arguments = answer.calls.get(at, ("", ""))
    answer.calls[at] = (name or _text(function.get("name")), arguments + _text(function.get("arguments")))


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _index(choice: Mapping[str, Any]) -> int:
    index = choice.get("index", 0)
    return index if isinstance(index, int) else 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float:
    """A log-probability; what is none counts as impossible, so that it accepts nothing."""
    return float(value) if isinstance(value, int | float) else float("-inf")
