"""The model that a request names: set by the replica, which alone knows the names of loaded adapters."""

import re

import orjson

from deployments.contracts.messages import Headers
from deployments.contracts.variants import ADAPTER

FIRST_FIELD = re.compile(rb'\{"model":"(?:[^"\\]|\\.)*"')
"""How a body of the ingress begins."""


def adapter_in(headers: Headers) -> str | None:
    """The adapter that a request names, empty for the model without one; `None` where it names neither."""
    value = next((value for name, value in headers if name == ADAPTER), None)
    return None if value is None else value.decode("latin-1")


def with_model(body: bytes, model: str) -> bytes:
    """A body with another `model`, which is not read where it is the first field.

    Raises:
        JSONDecodeError: the body is no JSON.
    """
    begins = FIRST_FIELD.match(body)
    # A later `model` would replace the first: only the ingress' own bodies have one alone.
    if begins is not None:
        return b'{"model":' + orjson.dumps(model) + body[begins.end() :]
    return orjson.dumps({**orjson.loads(body), "model": model})
