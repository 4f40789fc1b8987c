"""The form that a request requires of its answer: JSON, a schema, calls of its tools, a check of the caller.

An answer in the wrong form is evidence against it for a plan, never an error of the client. Pure.
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from jsonschema_rs import Validator

from deployments.contracts.answers import Answer
from deployments.contracts.requests import InferenceRequest
from deployments.contracts.schemas import SchemaNotChecked, validator

MAX_CHECKED_CHARACTERS = 256 * 1024
"""A longer answer is not checked: it counts as one in the wrong form."""

Check = Callable[[Answer], bool]


def required_form(request: InferenceRequest) -> Check | None:
    """Whether an answer has the required form, as a function; `None` where the request requires none."""
    body = request.read_fields() if request.for_plans.requires_form else {}
    checks = [check for check in (_of_format(body), _of_tools(body), caller_check(request)) if check]
    return (lambda answer: all(check(answer) for check in checks)) if checks else None


def caller_check(request: InferenceRequest) -> Check | None:
    """The caller's own check of `routing.check`; `None` without one."""
    check = request.routing.check
    if check is None:
        return None
    if check.regex is not None:
        pattern = validator({"type": "string", "pattern": check.regex})
        return lambda answer: _is_short(answer) and pattern.is_valid(answer.text)
    schema = validator(check.json_schema or {})
    return lambda answer: _fits(answer, schema)


def _of_format(body: Mapping[str, Any]) -> Check | None:
    wanted = body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        return lambda answer: isinstance(_json(answer), dict)
    described = wanted.get("json_schema") if isinstance(wanted, dict) else None
    schema = described.get("schema") if isinstance(described, dict) else None
    if kind != "json_schema" or not isinstance(schema, dict):
        return None
    try:
        compiled = validator(schema)
    except SchemaNotChecked:
        return lambda answer: _json(answer) is not None  # that it is JSON holds for any schema
    return lambda answer: _fits(answer, compiled)


def _of_tools(body: Mapping[str, Any]) -> Check | None:
    """Calls must name a tool of the request, with arguments that are a JSON object."""
    tools = body.get("tools")
    if not isinstance(tools, list) or not tools:
        return None
    functions = [tool.get("function", tool) for tool in tools if isinstance(tool, dict)]
    names = {function.get("name") for function in functions if isinstance(function, dict)}

    def check(answer: Answer) -> bool:
        return all(name in names and _is_object(arguments) for name, arguments in answer.calls.values())

    return check


def _fits(answer: Answer, schema: Validator) -> bool:
    value = _json(answer)
    return value is not None and schema.is_valid(value)


def _json(answer: Answer) -> Any:
    """The answer's JSON value; `None` where it is no JSON."""
    if not _is_short(answer):
        return None
    try:
        return orjson.loads(answer.text)
    except orjson.JSONDecodeError:
        return None


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text or "{}"), dict)
    except orjson.JSONDecodeError:
        return False


def _is_short(answer: Answer) -> bool:
    return len(answer.text) <= MAX_CHECKED_CHARACTERS
