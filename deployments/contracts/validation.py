"""A client's JSON and its faults: a body as an object, and pydantic's errors as bad requests.

Messages name the field, the expected value and the actual one, in JSON's words.
"""

import codecs
from typing import Any

import numpy as np
import orjson
from pydantic import BaseModel, ValidationError

from deployments.contracts.errors import BadRequest, ErrorCode

MAX_CONTAINERS = 200_000
"""Brackets in a body: each may be a list or an object, which takes far more memory than its two bytes."""
MAX_VALUES = 2_000_000
"""Brackets and commas in a body, an upper bound of its values; more than any context window can hold."""
COUNTED_BYTES = 256 * 1024
"""Bytes that are counted at a time: other threads run in between."""
LONGEST_NAME = 64
"""Characters of an unknown field's name that an error repeats."""
OUT_OF_RANGE = frozenset(
    {
        "greater_than",
        "greater_than_equal",
        "less_than",
        "less_than_equal",
        "literal_error",
        "value_error",
        "too_long",
    }
)
"""Pydantic's types of errors in a value that has the right type."""
EXPECTED = {
    "bool_type": "must be true or false",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "tuple_type": "must be a list",
}
"""Pydantic's types of errors in JSON's words; other errors keep pydantic's."""
_TYPES = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "nothing"}
_EMPTY: dict[type, str] = {dict: "an empty object", list: "an empty list", str: "an empty string"}


def json_object(raw: bytes) -> dict[str, Any]:
    """Read a body that has to be a JSON object.

    Raises:
        BadRequest: it is not JSON, not an object, or has more values than an honest request.
    """
    raw = raw.removeprefix(codecs.BOM_UTF8)
    _check_values(raw)
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {error}", ErrorCode.INVALID_JSON) from error
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be a JSON object, found {json_type(body)}", ErrorCode.INVALID_JSON)
    return body


def _check_values(raw: bytes) -> None:
    """Count values before parsing, which holds the interpreter for seconds where a body is all brackets.

    Raises:
        BadRequest: there are too many.
    """
    if len(raw) <= MAX_CONTAINERS:
        return  # each value has a byte
    containers = values = 0
    for start in range(0, len(raw), COUNTED_BYTES):
        part = np.frombuffer(raw, np.uint8, min(COUNTED_BYTES, len(raw) - start), start)
        containers += int(np.count_nonzero(part == ord("["))) + int(np.count_nonzero(part == ord("{")))
        values += int(np.count_nonzero(part == ord(",")))
        if containers > MAX_CONTAINERS or containers + values > MAX_VALUES:
            raise BadRequest(
                f"the body has too many values: at most {MAX_CONTAINERS} brackets, and {MAX_VALUES} brackets "
                "and commas together, are accepted",
                ErrorCode.INVALID_VALUE,
            )


def json_type(value: Any) -> str:
    """A value's type in JSON's words; an empty one says so."""
    if value in ({}, [], ""):
        return _EMPTY[type(value)]
    return _TYPES.get(type(value), "a number")


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema, without pydantic's titles, which only repeat the names."""
    schema = model.model_json_schema()
    for field in schema["properties"].values():
        field.pop("title", None)
    return {key: value for key, value in schema.items() if key != "title"}


def wrong_type(where: str, expected: str, value: Any) -> BadRequest:
    """The error for a value of another type."""
    return BadRequest(f"{where} must be {expected}, found {json_type(value)}", ErrorCode.INVALID_TYPE, where)


def bad_request(error: ValidationError, prefix: str, fields: list[str]) -> BadRequest:
    """A pydantic error as the bad request that names its field.

    Args:
        error: the first unknown field counts, else the first error.
        prefix: where the object is, such as `routing.`; empty for the body itself.
        fields: the fields that the object has.
    """
    items = error.errors(include_url=False)
    unknown = sorted(str(item["loc"][0]) for item in items if item["type"] == "extra_forbidden")
    if unknown:
        param = f"{prefix}{unknown[0][:LONGEST_NAME]}"
        message = f"{param} is unknown; known fields: {', '.join(sorted(fields))}"
        return BadRequest(message, ErrorCode.UNKNOWN_FIELD, param)
    item = items[0]
    code = ErrorCode.INVALID_VALUE if item["type"] in OUT_OF_RANGE else ErrorCode.INVALID_TYPE
    if not item["loc"]:
        # Found by comparing fields: the object as a whole is at fault.
        whole = prefix.rstrip(".") or None
        text = item["msg"].removeprefix("Value error, ")
        return BadRequest(f"{whole}: {text}" if whole else text, code, whole)
    param = f"{prefix}{item['loc'][0]}"
    where = param + "".join(f"[{index}]" for index in item["loc"][1:])
    if item["type"] == "missing":
        return BadRequest(f"{where} is missing", code, param)
    expected = EXPECTED.get(item["type"], item["msg"].replace("Input should", "should", 1))
    actual = item["input"] if code is ErrorCode.INVALID_VALUE else None
    shown = json_type(item["input"]) if actual is None else repr(actual)[:40]
    return BadRequest(f"{where} {expected}, found {shown}", code, param)
