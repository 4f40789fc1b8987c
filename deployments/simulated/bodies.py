"""Bodies of simulated responses: OpenAI's and Anthropic's forms, non-streaming and streaming.

Pure: words in, bytes out. Knows neither time nor Ray. The texts are made up and state that they are.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from deployments.contracts.sse import DONE

Finish = Literal["stop", "length"]
USUAL_LOGPROB = -0.25
"""Of every token of an answer that is neither right nor wrong."""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer, token by token."""

    words: tuple[str, ...]
    """One token each; all but the first begin with a blank."""
    logprobs: tuple[float, ...]
    """Each token's log-probability."""
    finish: Finish = "stop"

    @property
    def text(self) -> str:
        return "".join(self.words)

    def cut(self, most: int | None) -> "Completion":
        """The first tokens, where the request bounds them."""
        if most is None or most >= len(self.words):
            return self
        return Completion(self.words[:most], self.logprobs[:most], "length")


@dataclass(frozen=True, slots=True)
class Script:
    """Contents of the response to one request."""

    model: str
    completions: tuple[Completion, ...]
    """One for each of the request's `n`; at least one."""
    prompt_tokens: int
    include_usage: bool = False
    """`stream_options.include_usage`: the usage as an event of its own."""
    with_logprobs: bool = False
    """Whether the request has `logprobs`."""

    @property
    def first(self) -> Completion:
        """The completion of the endpoints that have a single one."""
        return self.completions[0]

    @property
    def tokens(self) -> int:
        """Of the longest completion: all of them are written at the same pace."""
        return max(len(completion.words) for completion in self.completions)

    @property
    def all_tokens(self) -> int:
        """Of all completions together."""
        return sum(len(completion.words) for completion in self.completions)

    @property
    def usage(self) -> dict[str, int]:
        """Usage in the form of chat and completions."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.all_tokens,
            "total_tokens": self.prompt_tokens + self.all_tokens,
        }

    @property
    def token_usage(self) -> dict[str, int]:
        """Usage in the form of /v1/responses and /v1/messages."""
        return {"input_tokens": self.prompt_tokens, "output_tokens": len(self.first.words)}


def completion_of(expert: str, text: str | None, tokens: int) -> Completion:
    """Return an answer that names itself as simulated: `text`'s words, or `tokens` numbered ones."""
    words = [f"[simulated expert {expert}]"]
    words += [f"w{number}" for number in range(1, tokens)] if text is None else text.split()
    spaced = tuple(word if index == 0 else f" {word}" for index, word in enumerate(words))
    return Completion(spaced, (USUAL_LOGPROB,) * len(spaced))


def complete(kind: str, script: Script) -> bytes:
    """Return the body of a non-streaming response.

    Args:
        kind: chat, completions, responses or messages.
        script: its contents.
    """
    return orjson.dumps(_COMPLETE[kind](script))


def events(kind: str, script: Script) -> Iterator[tuple[int, bytes]]:
    """Yield the events of a stream, each with the number of the token that it waits for (0: at once)."""
    return _EVENTS[kind](script)


def error(status: int, message: str, type_: str = "InternalServerError") -> bytes:
    """Return an error in vLLM's form, with its integer code."""
    return orjson.dumps({"error": {"message": message, "type": type_, "param": None, "code": status}})


def _chat(script: Script) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": completion.text},
            "logprobs": _chat_logprobs(script, completion, 0, len(completion.words)),
            "finish_reason": completion.finish,
        }
        for index, completion in enumerate(script.completions)
    ]
    return {**_head("chatcmpl", "chat.completion", script), "choices": choices, "usage": script.usage}


def _completions(script: Script) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "text": completion.text,
            "logprobs": _completion_logprobs(script, completion, 0, len(completion.words)),
            "finish_reason": completion.finish,
        }
        for index, completion in enumerate(script.completions)
    ]
    return {**_head("cmpl", "text_completion", script), "choices": choices, "usage": script.usage}


def _chat_logprobs(script: Script, completion: Completion, start: int, end: int) -> dict[str, Any] | None:
    if not script.with_logprobs:
        return None
    part = slice(start, end)
    return {
        "content": [
            {"token": word, "logprob": logprob, "bytes": list(word.encode()), "top_logprobs": []}
            for word, logprob in zip(completion.words[part], completion.logprobs[part], strict=True)
        ]
    }


def _completion_logprobs(
    script: Script, completion: Completion, start: int, end: int
) -> dict[str, Any] | None:
    if not script.with_logprobs:
        return None
    lengths = [len(word) for word in completion.words]
    return {
        "text_offset": [sum(lengths[:at]) for at in range(start, end)],
        "token_logprobs": list(completion.logprobs[start:end]),
        "tokens": list(completion.words[start:end]),
        "top_logprobs": [None] * (end - start),
    }


def _responses(script: Script) -> dict[str, Any]:
    item = {
        "id": "msg_simulated",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": script.first.text, "annotations": []}],
    }
    usage = {**script.token_usage, "total_tokens": sum(script.token_usage.values())}
    status = "completed" if script.first.finish == "stop" else "incomplete"
    return {**_response(script), "status": status, "output": [item], "usage": usage}


def _messages(script: Script) -> dict[str, Any]:
    return {
        **_message(script),
        "content": [{"type": "text", "text": script.first.text}],
        "stop_reason": _stop_reason(script),
        "usage": script.token_usage,
    }


def _chat_events(script: Script) -> Iterator[tuple[int, bytes]]:
    head = _head("chatcmpl", "chat.completion.chunk", script)

    def chunk(index: int, delta: Mapping[str, Any], logprobs: Any = None, finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return _data({**head, "choices": [choice]})

    for index, _ in enumerate(script.completions):
        yield 1, chunk(index, {"role": "assistant", "content": ""})
    for number, index, completion in _in_turn(script):
        logprobs = _chat_logprobs(script, completion, number - 1, number)
        yield number, chunk(index, {"content": completion.words[number - 1]}, logprobs)
        if number == len(completion.words):
            yield number, chunk(index, {}, finish=completion.finish)
    yield from _openai_end(head, script)


def _completion_events(script: Script) -> Iterator[tuple[int, bytes]]:
    head = _head("cmpl", "text_completion", script)
    for number, index, completion in _in_turn(script):
        choice = {
            "index": index,
            "text": completion.words[number - 1],
            "logprobs": _completion_logprobs(script, completion, number - 1, number),
            "finish_reason": completion.finish if number == len(completion.words) else None,
        }
        yield number, _data({**head, "choices": [choice]})
    yield from _openai_end(head, script)


def _in_turn(script: Script) -> Iterator[tuple[int, int, Completion]]:
    """(number of a token from 1, index of its completion, completion), in the order of writing."""
    for number in range(1, script.tokens + 1):
        for index, completion in enumerate(script.completions):
            if number <= len(completion.words):
                yield number, index, completion


def _openai_end(head: Mapping[str, Any], script: Script) -> Iterator[tuple[int, bytes]]:
    last = script.tokens
    if script.include_usage:
        yield last, _data({**head, "choices": [], "usage": script.usage})
    yield last, DONE


def _response_events(script: Script) -> Iterator[tuple[int, bytes]]:
    begun = {**_response(script), "status": "in_progress", "output": [], "usage": None}
    sequence = itertools.count()

    def event(type_: str, **fields: Any) -> bytes:
        return _named({"type": type_, "sequence_number": next(sequence), **fields})

    position = {"item_id": "msg_simulated", "output_index": 0, "content_index": 0}
    yield 1, event("response.created", response=begun)
    for number, word in enumerate(script.first.words, 1):
        yield number, event("response.output_text.delta", **position, delta=word, logprobs=[])
    last = len(script.first.words)
    yield last, event("response.output_text.done", **position, text=script.first.text, logprobs=[])
    type_ = "response.completed" if script.first.finish == "stop" else "response.incomplete"
    yield last, event(type_, response=_responses(script))


def _message_events(script: Script) -> Iterator[tuple[int, bytes]]:
    usage = {"input_tokens": script.prompt_tokens, "output_tokens": 0}
    begun = {**_message(script), "content": [], "stop_reason": None, "usage": usage}
    yield 1, _named({"type": "message_start", "message": begun})
    block = {"type": "text", "text": ""}
    yield 1, _named({"type": "content_block_start", "index": 0, "content_block": block})
    for number, word in enumerate(script.first.words, 1):
        delta = {"type": "text_delta", "text": word}
        yield number, _named({"type": "content_block_delta", "index": 0, "delta": delta})
    last = len(script.first.words)
    yield last, _named({"type": "content_block_stop", "index": 0})
    end = {"stop_reason": _stop_reason(script), "stop_sequence": None}
    yield last, _named({"type": "message_delta", "delta": end, "usage": script.token_usage})
    yield last, _named({"type": "message_stop"})


def _head(prefix: str, object_: str, script: Script) -> dict[str, Any]:
    id_ = f"{prefix}-simulated-{next(_numbers)}"
    return {"id": id_, "object": object_, "created": 0, "model": script.model}


def _response(script: Script) -> dict[str, Any]:
    return {
        **_head("resp", "response", script),
        "created_at": 0,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": None,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def _message(script: Script) -> dict[str, Any]:
    id_ = f"msg-simulated-{next(_numbers)}"
    return {
        "id": id_,
        "type": "message",
        "role": "assistant",
        "model": script.model,
        "stop_sequence": None,
    }


def _stop_reason(script: Script) -> str:
    return "end_turn" if script.first.finish == "stop" else "max_tokens"


def _data(value: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _named(value: Mapping[str, Any]) -> bytes:
    return b"event: " + str(value["type"]).encode() + b"\n" + _data(value)


_COMPLETE = {"chat": _chat, "completions": _completions, "responses": _responses, "messages": _messages}
_EVENTS = {
    "chat": _chat_events,
    "completions": _completion_events,
    "responses": _response_events,
    "messages": _message_events,
}
