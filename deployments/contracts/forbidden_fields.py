"""One table of the fields of a body that do not reach an expert unless its configuration allows them.

vLLM accepts them from anyone: they are meant for one trusted client of one engine. Pure data, and one
function that finds them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

DEEPEST_PART = 8
"""Parts of messages are searched so deep; engines look at four levels."""


@dataclass(frozen=True, slots=True)
class ForbiddenField:
    """A field, and what it could do at an engine."""

    name: str
    """Its path in the body; of a message's parts, the type."""
    why: str
    harmless: tuple[Any, ...] = (None,)
    """Values that mean the same as the field's absence."""


FORBIDDEN_FIELDS: Mapping[str, ForbiddenField] = {
    field.name: field
    for field in (
        ForbiddenField("chat_template", "a client's Jinja template runs in the engine's process"),
        ForbiddenField(
            "chat_template_kwargs.chat_template", "a client's Jinja template runs in the engine's process"
        ),
        ForbiddenField("mm_processor_kwargs", "arguments of the processor that may load code"),
        ForbiddenField("media_io_kwargs", "arguments of the media loaders, without a bound on memory"),
        ForbiddenField("kv_transfer_params", "reads and writes the cache of other requests"),
        ForbiddenField("ec_transfer_params", "reads and writes the encoder cache of other requests"),
        ForbiddenField("prompt_embeds", "a serialised tensor that the engine loads"),
        ForbiddenField("cache_salt", "shares the prefix cache of another client"),
        ForbiddenField("priority", "overtakes other requests in the engine", (None, 0)),
        ForbiddenField("request_id", "the id by which the engine knows another request"),
        ForbiddenField("vllm_xargs", "arguments of the engine's own extensions"),
        ForbiddenField("background", "the work continues unseen when the request has ended", (None, False)),
        ForbiddenField(
            "service_tier", "may cost more than the configured price", (None, "auto", "default", "flex")
        ),
    )
}
"""Path of a field → the field."""


def forbidden_fields(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of a body that need an expert's permission, in the order of the table."""
    return tuple(
        [
            name
            for name, (field, outer, inner) in _PARTS_OF_NAMES.items()
            if (outer in body or outer == "prompt_embeds") and _is_present(body, field, outer, inner)
        ]
    )


_PARTS_OF_NAMES = {
    name: (field, name.partition(".")[0], name.partition(".")[2]) for name, field in FORBIDDEN_FIELDS.items()
}
"""Path of a field → the field, the outer name of its path, and the inner one."""


def _is_present(body: Mapping[str, Any], field: ForbiddenField, outer: str, inner: str) -> bool:
    value = body.get(outer)
    if inner:
        value = value.get(inner) if isinstance(value, Mapping) else None
    # `False == 0` in Python, but not in JSON: `priority: false` is no number and means nothing.
    if not any(value is known or value == known for known in field.harmless):
        return True
    return field.name == "prompt_embeds" and any(
        part.get("type") == field.name or part.get(field.name) is not None
        for name in ("messages", "input")
        for part in _parts(body.get(name), DEEPEST_PART)
    )


def _parts(value: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """Messages, and the parts of their contents."""
    if depth and isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                yield item
                yield from _parts(item.get("content"), depth - 1)
