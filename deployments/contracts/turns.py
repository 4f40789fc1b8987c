"""Read the turns of a request's body, which are written in another form at each endpoint."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from deployments.contracts.endpoints import Endpoint, Form
from deployments.contracts.errors import BadRequest, ErrorCode
from deployments.contracts.validation import wrong_type

Turns = Iterator[tuple[str, str]]
"""(role, text) of each turn, in order."""


def _turns_of_messages(endpoint: Endpoint, body: Mapping[str, Any], max_messages: int) -> Turns:
    if endpoint.system_field is not None and body.get(endpoint.system_field) is not None:
        yield "system", _text(body[endpoint.system_field], endpoint.system_field)
    yield from _messages(body.get(endpoint.query_field), endpoint.query_field, max_messages)


def _turns_of_input(endpoint: Endpoint, body: Mapping[str, Any], max_messages: int) -> Turns:
    if endpoint.system_field is not None and isinstance(body.get(endpoint.system_field), str):
        yield "system", body[endpoint.system_field]
    value = body.get(endpoint.query_field)
    if isinstance(value, str):
        yield "user", value
    else:
        yield from _messages(value, endpoint.query_field, max_messages)


def _turns_of_prompts(endpoint: Endpoint, body: Mapping[str, Any], max_messages: int) -> Turns:
    name = endpoint.query_field
    value = body.get(name)
    if value is None or value == []:
        raise BadRequest(f"{name} is missing", ErrorCode.MISSING_FIELD, name)
    if isinstance(value, str):
        yield "user", value
    elif isinstance(value, list):
        # Token ids contain no text to read.
        yield "user", "\n".join(item for item in value if isinstance(item, str))
    else:
        raise wrong_type(name, "a string or a list", value)


def _turns_of_prompt(endpoint: Endpoint, body: Mapping[str, Any], max_messages: int) -> Turns:
    if "messages" in body:
        yield from _messages(body["messages"], "messages", max_messages)
    else:
        yield from _turns_of_prompts(endpoint, body, max_messages)


READERS: Mapping[Form, Callable[[Endpoint, Mapping[str, Any], int], Turns]] = {
    "messages": _turns_of_messages,
    "input": _turns_of_input,
    "prompts": _turns_of_prompts,
    "prompt": _turns_of_prompt,
}
"""Form of a query → its reader, which rejects what no expert could read."""


def _messages(messages: Any, name: str, max_messages: int) -> Turns:
    if messages is None:
        raise BadRequest(f"{name} is missing", ErrorCode.MISSING_FIELD, name)
    if not isinstance(messages, list) or not messages:
        raise wrong_type(name, "a non-empty list", messages)
    if len(messages) > max_messages:
        text = f"at most {max_messages} {name} are accepted, found {len(messages)}"
        raise BadRequest(text, ErrorCode.TOO_MANY_MESSAGES, name)
    for index, message in enumerate(messages):
        where = f"{name}[{index}]"
        if not isinstance(message, dict):
            raise wrong_type(where, "an object", message)
        role = message.get("role", "tool" if name == "input" else None)
        if not isinstance(role, str):
            raise wrong_type(f"{where}.role", "a string", role)
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
        raise wrong_type(where, "a string or a list of parts", content)
    texts = []
    for index, part in enumerate(content):
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, dict):
            raise wrong_type(f"{where}[{index}]", "an object", part)
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
    return "\n".join(texts)


def _only_tool_results(content: Any) -> bool:
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(part, dict) and part.get("type") == "tool_result" for part in content)
    )
