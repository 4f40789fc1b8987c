"""Validators of JSON schemas that clients send, within bounds.

Schemas are small and without references, and patterns match in linear time. Pure.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
from jsonschema_rs import RegexOptions, ValidationError, Validator, validator_for

MAX_SCHEMA_BYTES = 16 * 1024
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
"""Keywords that let a small schema take exponential time."""
PATTERNS = RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)


class SchemaNotChecked(ValueError):
    """A schema that cannot be checked within bounds; the message says why."""


def validator(schema: Mapping[str, Any]) -> Validator:
    """A validator with bounds.

    Raises:
        SchemaNotChecked: the schema is too long, refers to others, or is no schema.
    """
    raw = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    if len(raw) > MAX_SCHEMA_BYTES:
        raise SchemaNotChecked(f"at most {MAX_SCHEMA_BYTES} bytes are checked, found {len(raw)}")
    if keyword := next((word for word in REFERENCES if f'"{word}"'.encode() in raw), None):
        raise SchemaNotChecked(f"{keyword} is not supported: write the schema out")
    return _compiled(raw)


@lru_cache(maxsize=64)
def _compiled(raw: bytes) -> Validator:
    try:
        return validator_for(raw.decode(), pattern_options=PATTERNS, retriever=_not_retrieved)
    except (ValidationError, ValueError) as error:
        raise SchemaNotChecked(str(error).partition("\n")[0]) from error


def _not_retrieved(uri: str) -> Any:
    raise ValueError(f"{uri} is not retrieved")
