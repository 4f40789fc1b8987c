"""Keys and values of one object, against Serve's schemas and our own models."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from cluster.check.finding import Finding
from cluster.check.known_keys import serve_keys
from router.validation import explain


def unknown_keys(data: Any, schema: str, where: str) -> Iterator[Finding]:
    """Find the keys that Serve does not know.

    Args:
        data: the object; anything else is a finding.
        schema: a name in `known_keys.SERVE_SCHEMAS`.
        where: the object's own key, for the findings.
    """
    if not isinstance(data, Mapping):
        yield Finding.wrong(where, data, "an object with Serve's keys")
        return
    known = serve_keys(schema)
    for name in sorted(str(key) for key in data if known and key not in known):
        yield Finding("error", f"{where}.{name}".lstrip("."), "unknown key: Serve would drop it silently")


def model_errors(model: type[BaseModel], data: Any, where: str) -> Iterator[Finding]:
    """Find what one of our models rejects."""
    try:
        model.model_validate(data)
    except ValidationError as error:
        for line in explain(error, where).split("; "):
            key, _, message = line.partition(": ")
            yield Finding("error", key, message)
