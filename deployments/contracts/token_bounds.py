"""The most tokens that a request can use at an engine: its bounds, prompts and copies, by endpoint.

Pure. Each endpoint reads fields of its own: a bound that the engine ignores must not lower a reservation.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from deployments.contracts.endpoints import Endpoint
from deployments.contracts.errors import BadRequest, ErrorCode
from deployments.contracts.validation import wrong_type

ASSUMED_COMPLETION_TOKENS = 512
"""Completion tokens reserved when a request has no bound; reconciled with usage afterwards."""
BYTES_PER_TOKEN = 4
"""A cautious estimate over languages and tokenizers; the expert itself counts exactly."""
MEDIA_TOKENS = 1024
"""Tokens reserved for an image or another medium: about what vision models make of one."""
IN_PROMPT = ("tools", "functions", "response_format", "structured_outputs", "text", "documents")
"""Fields beside the messages that a chat template or an engine writes into the prompt."""


def tokens_of(text: str) -> int:
    """Estimated tokens of a text."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return -(-size // BYTES_PER_TOKEN)


def max_tokens(endpoint: Endpoint, body: Mapping[str, Any]) -> int | None:
    """The largest of the bounds that the endpoint reads; `None` where the body has none.

    Raises:
        BadRequest: a bound is no whole number, or is below zero.
    """
    bounds = [
        value for name in endpoint.bounds if (value := _whole_number(body, name, at_least=0)) is not None
    ]
    return max(bounds, default=None)


def copies(endpoint: Endpoint, body: Mapping[str, Any]) -> int:
    """Completions for each prompt.

    Raises:
        BadRequest: the number is no whole number, or is below one.
    """
    return max((_whole_number(body, name, at_least=1) or 1 for name in endpoint.copies), default=1)


def other_prompt_tokens(body: Mapping[str, Any], media: int) -> int:
    """Estimated tokens of a prompt that are in no message: tools, schemas, media."""
    fields = [body[name] for name in IN_PROMPT if body.get(name) is not None]
    try:
        size = sum(len(orjson.dumps(field)) for field in fields)
    except orjson.JSONEncodeError:  # nested too deeply: it is rejected before it is forwarded
        size = 0
    return -(-size // BYTES_PER_TOKEN) + MEDIA_TOKENS * media


def _whole_number(body: Mapping[str, Any], name: str, *, at_least: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(name, "a whole number", value)
    if value < at_least:
        raise BadRequest(f"{name} must be at least {at_least}, found {value}", ErrorCode.INVALID_VALUE, name)
    return value
