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
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Script:
    """Contents of the response to one request."""

    model: str
    words: tuple[str, ...]
    """One token each; all but the first begin with a blank."""
    prompt_tokens: int
    finish: Finish
    include_usage: bool = False
    """`stream_options.include_usage`: the usage as an event of its own."""

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def usage(self) -> dict[str, int]:
        """Usage in the form of chat and completions."""
        done = len(self.words)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": done,
            "total_tokens": self.prompt_tokens + done,
        }

    @property
    def token_usage(self) -> dict[str, int]:
        """Usage in the form of /v1/responses and /v1/messages."""
        return {"input_tokens": self.prompt_tokens, "output_tokens": len(self.words)}


def words_of(expert: str, text: str | None, tokens: int) -> tuple[str, ...]:
    """Return an answer that names itself as simulated: `text`'s words, or `tokens` numbered ones."""
    words = [f"[simulated expert {expert}]"]
    words += [f"w{number}" for number in range(1, tokens)] if text is None else text.split()
    return tuple(word if index == 0 else f" {word}" for index, word in enumerate(words))


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
    message = {"role": "assistant", "content": script.text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": script.finish}
    return {**_head("chatcmpl", "chat.completion", script), "choices": [choice], "usage": script.usage}


def _completions(script: Script) -> dict[str, Any]:
    choice = {"index": 0, "text": script.text, "logprobs": None, "finish_reason": script.finish}
    return {**_head("cmpl", "text_completion", script), "choices": [choice], "usage": script.usage}


def _responses(script: Script) -> dict[str, Any]:
    item = {
        "id": "msg_simulated",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": script.text, "annotations": []}],
    }
    usage = {**script.token_usage, "total_tokens": script.usage["total_tokens"]}
    status = "completed" if script.finish == "stop" else "incomplete"
    return {**_response(script), "status": status, "output": [item], "usage": usage}


def _messages(script: Script) -> dict[str, Any]:
    return {
        **_message(script),
        "content": [{"type": "text", "text": script.text}],
        "stop_reason": _stop_reason(script),
        "usage": script.token_usage,
    }


def _chat_events(script: Script) -> Iterator[tuple[int, bytes]]:
    head = _head("chatcmpl", "chat.completion.chunk", script)

    def chunk(delta: Mapping[str, Any], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data({**head, "choices": [choice]})

    yield 1, chunk({"role": "assistant", "content": ""}, None)
    for number, word in enumerate(script.words, 1):
        yield number, chunk({"content": word}, None)
    yield len(script.words), chunk({}, script.finish)
    yield from _openai_end(head, script)


def _completion_events(script: Script) -> Iterator[tuple[int, bytes]]:
    head = _head("cmpl", "text_completion", script)
    for number, word in enumerate(script.words, 1):
        finish = script.finish if number == len(script.words) else None
        choice = {"index": 0, "text": word, "logprobs": None, "finish_reason": finish}
        yield number, _data({**head, "choices": [choice]})
    yield from _openai_end(head, script)


def _openai_end(head: Mapping[str, Any], script: Script) -> Iterator[tuple[int, bytes]]:
    last = len(script.words)
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
    for number, word in enumerate(script.words, 1):
        yield number, event("response.output_text.delta", **position, delta=word, logprobs=[])
    last = len(script.words)
    yield last, event("response.output_text.done", **position, text=script.text, logprobs=[])
    type_ = "response.completed" if script.finish == "stop" else "response.incomplete"
    yield last, event(type_, response=_responses(script))


def _message_events(script: Script) -> Iterator[tuple[int, bytes]]:
    usage = {"input_tokens": script.prompt_tokens, "output_tokens": 0}
    begun = {**_message(script), "content": [], "stop_reason": None, "usage": usage}
    yield 1, _named({"type": "message_start", "message": begun})
    block = {"type": "text", "text": ""}
    yield 1, _named({"type": "content_block_start", "index": 0, "content_block": block})
    for number, word in enumerate(script.words, 1):
        delta = {"type": "text_delta", "text": word}
        yield number, _named({"type": "content_block_delta", "index": 0, "delta": delta})
    last = len(script.words)
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
    return "end_turn" if script.finish == "stop" else "max_tokens"


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
