"""Read from a request's body what routing needs, and nothing more.

Pure: JSON in, a frozen `InferenceRequest` out. Everything that it does not name passes to the expert
unchanged. Knows the shapes of OpenAI's and Anthropic's endpoints; imports neither client.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from deployments.contracts.conversation import UNKNOWN, Conversation, conversation_of
from deployments.contracts.endpoints import ENDPOINTS, Endpoint, Kind
from deployments.contracts.errors import BadRequest, ErrorCode
from deployments.contracts.forbidden_fields import forbidden_fields
from deployments.contracts.harness_blocks import HARNESS_TAGS
from deployments.contracts.plan_facts import PlanFacts
from deployments.contracts.query import read_query
from deployments.contracts.routing_options import RoutingOptions, parse_routing
from deployments.contracts.token_bounds import (
    ASSUMED_COMPLETION_TOKENS,
    copies,
    max_tokens,
    other_prompt_tokens,
    tokens_of,
)
from deployments.contracts.turns import READERS
from deployments.contracts.validation import json_object, wrong_type

OURS = frozenset({"model", "cache_salt"})
"""Fields that each expert gets with a value of its own."""
TOKENS_PER_MESSAGE = 4
"""Role and separators of a chat template."""
MEDIA = frozenset(
    {
        "image", "image_url", "input_image", "image_embeds", "image_pil",
        "audio_url", "input_audio", "audio_embeds", "video_url", "video_embeds", "file", "input_file",
    }
)  # fmt: skip
"""Parts of a message, and fields of parts, that are more than text; engines fetch some of them by URL."""
DEEPEST_PART = 12
"""Media are looked for so deep in lists and parts; engines look at four levels."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What the ingress knows of a request: for routing, limits and accounting."""

    endpoint: Endpoint
    model: str
    query: str
    prompt_tokens: int
    """Estimated, of all prompts together."""
    tokens_to_query: int
    """Estimated, up to the query: what a decision counts, so that it is repeated in a tool loop."""
    longest_tokens: int
    """Estimated, of the longest prompt: what has to fit a context window."""
    max_tokens: int | None
    """The bound that the endpoint reads, for one completion; `None` where there is none."""
    sequences: int
    """Completions that the engine makes: `n` for each prompt."""
    other_prompt_tokens: int
    """Estimated, of what the prompt has beside its texts: tools, schemas, media."""
    stream: bool
    needs: frozenset[str]
    """Capabilities that an expert must have: `tools`, `vision`, `embeddings`."""
    forbidden: tuple[str, ...]
    """Its fields that only an expert whose configuration allows them may get."""
    routing: RoutingOptions
    hides_usage: bool
    """Whether the expert reports usage for the accounting alone: the client did not request it."""
    stored_by_expert: str | None
    """Its field that refers to something which one expert stored; `None` where it has none."""
    cache_salt: str | None
    """The client's own, for experts whose configuration allows it."""
    for_plans: PlanFacts
    fields: bytes
    """Its body to forward, but for `model`: bytes take less memory than the values read from them."""
    conversation: Conversation = UNKNOWN
    """What it continues, where its endpoint has turns."""

    @property
    def kind(self) -> Kind:
        """Kind of its endpoint."""
        return self.endpoint.kind

    @property
    def path(self) -> str:
        """Path of its endpoint."""
        return self.endpoint.path

    @property
    def most_prompt_tokens(self) -> int:
        """Prompt tokens to reserve."""
        return self.prompt_tokens + self.other_prompt_tokens if self.endpoint.runs_model else 0

    @property
    def most_completion_tokens(self) -> int:
        """Completion tokens to reserve, of all sequences together."""
        if not self.endpoint.bounds:
            return 0
        each = ASSUMED_COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens
        return each * self.sequences

    def body_for(self, model: str, cache_salt: str | None = None) -> bytes:
        """The body to forward.

        Args:
            model: how the expert knows itself.
            cache_salt: a salt of ours; the client's own is appended to it.
        """
        ours = {"model": model}
        if salt := (cache_salt or "") + (self.cache_salt or ""):
            ours["cache_salt"] = salt
        head = orjson.dumps(ours)
        return head if self.fields == b"{}" else b"".join((head[:-1], b",", memoryview(self.fields)[1:]))

    def with_fields(self, **changes: Any) -> "InferenceRequest":
        """The request with fields of its body replaced."""
        return replace(self, fields=orjson.dumps({**self.read_fields(), **changes}))

    def read_fields(self) -> dict[str, Any]:
        """Its body again, but for `model`; large ones take milliseconds."""
        fields: dict[str, Any] = orjson.loads(self.fields)
        return fields

    def without_body(self) -> "InferenceRequest":
        """The request once an expert has responded, and nothing of its body is needed."""
        return replace(self, fields=b"{}")


def parse(
    path: str, raw: bytes, *, max_messages: int, harness_tags: frozenset[str] = HARNESS_TAGS
) -> InferenceRequest:
    """Read a request's body.

    Args:
        path: the endpoint.
        raw: the body.
        max_messages: messages of a conversation at most.
        harness_tags: tags of blocks that are no part of the query.

    Raises:
        BadRequest: not JSON, not an object, or a field that routing reads is missing or invalid.
    """
    return read(ENDPOINTS[path], json_object(raw), max_messages=max_messages, harness_tags=harness_tags)


def parse_for_any_endpoint(
    raw: bytes, *, max_messages: int, harness_tags: frozenset[str] = HARNESS_TAGS
) -> InferenceRequest:
    """Read a body of `/v1/route`, which may be meant for each of the endpoints.

    Raises:
        BadRequest: as `parse`.
    """
    body = json_object(raw)
    return read(endpoint_of(body), body, max_messages=max_messages, harness_tags=harness_tags)


def endpoint_of(body: Mapping[str, Any]) -> Endpoint:
    """The endpoint that a body is meant for, by the field that contains its query."""
    if "messages" in body:
        return ENDPOINTS["/v1/messages" if "system" in body else "/v1/chat/completions"]
    if "input" in body:
        return ENDPOINTS["/v1/embeddings" if _is_to_embed(body) else "/v1/responses"]
    return ENDPOINTS["/v1/completions" if "prompt" in body else "/v1/chat/completions"]


def _is_to_embed(body: Mapping[str, Any]) -> bool:
    """Whether `input` is texts or tokens to embed; a single text alone is one to respond to."""
    value = body["input"]
    texts_or_tokens = isinstance(value, list) and bool(value) and not isinstance(value[0], dict)
    return texts_or_tokens or "encoding_format" in body or "dimensions" in body


def read(
    endpoint: Endpoint,
    body: dict[str, Any],
    *,
    max_messages: int,
    harness_tags: frozenset[str] = HARNESS_TAGS,
) -> InferenceRequest:
    """Read a body that is a JSON object; takes `routing` out of it.

    Raises:
        BadRequest: as `parse`.
    """
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise wrong_type("model", "a non-empty string", model)
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise wrong_type("stream", "true or false", stream)
    _check_usage_option(body)
    routing = parse_routing(body.pop("routing", None))
    cache_salt = body.get("cache_salt")
    if cache_salt is not None and not isinstance(cache_salt, str):
        raise wrong_type("cache_salt", "a string", cache_salt)
    turns = list(READERS[endpoint.form](endpoint, body, max_messages))
    query = read_query(turns, harness_tags)
    prompts = _prompt_lengths(endpoint, body)
    lengths = prompts or [_tokens(turns)]
    streams = bool(stream) and endpoint.streams
    hides_usage = streams and endpoint.usage_option and _leaves_out_usage(body)
    return InferenceRequest(
        endpoint=endpoint,
        model=model,
        query=query.text,
        prompt_tokens=sum(lengths),
        tokens_to_query=sum(lengths) if prompts else _tokens(turns[: query.turns]),
        longest_tokens=max(lengths),
        max_tokens=max_tokens(endpoint, body),
        sequences=len(lengths) * copies(endpoint, body),
        other_prompt_tokens=other_prompt_tokens(body, _media_in(endpoint, body)),
        stream=streams,
        needs=_needs(endpoint, body),
        forbidden=forbidden_fields(body),
        routing=routing,
        hides_usage=hides_usage,
        stored_by_expert=_stored_by_expert(endpoint, body),
        cache_salt=cache_salt,
        for_plans=PlanFacts.of(body),
        fields=_fields(body, with_usage=hides_usage),
        conversation=UNKNOWN if prompts else conversation_of(turns, body.get("prompt_cache_key")),
    )


def _stored_by_expert(endpoint: Endpoint, body: Mapping[str, Any]) -> str | None:
    if body.get("previous_response_id") is not None:
        return "previous_response_id"
    items = body.get("input") if endpoint.form == "input" else None
    references = isinstance(items, list) and any(
        isinstance(item, dict) and item.get("type") == "item_reference" for item in items
    )
    return "input" if references else None


def _leaves_out_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    return options is None or (isinstance(options, dict) and not options.get("include_usage"))


def _fields(body: Mapping[str, Any], *, with_usage: bool) -> bytes:
    """A body without the fields that `body_for` sets, with a request for usage where the accounting needs it.

    Raises:
        BadRequest: it is nested too deeply to be written again.
    """
    # The API reads null as left out; engines reject it for some parameters.
    fields = {name: value for name, value in body.items() if value is not None and name not in OURS}
    if with_usage:
        fields["stream_options"] = {**(fields.get("stream_options") or {}), "include_usage": True}
    try:
        return orjson.dumps(fields)
    except orjson.JSONEncodeError as error:
        raise BadRequest(f"the body cannot be forwarded: {error}", ErrorCode.INVALID_JSON) from error


def _check_usage_option(body: Mapping[str, Any]) -> None:
    """An engine reads texts such as "no" as booleans; the accounting depends on what it will do."""
    options = body.get("stream_options")
    wanted = options.get("include_usage") if isinstance(options, dict) else None
    if wanted is not None and not isinstance(wanted, bool):
        raise wrong_type("stream_options.include_usage", "true or false", wanted)


def _tokens(turns: Sequence[tuple[str, str]]) -> int:
    return sum(tokens_of(text) for _, text in turns) + TOKENS_PER_MESSAGE * len(turns)


def _prompt_lengths(endpoint: Endpoint, body: Mapping[str, Any]) -> list[int] | None:
    """Tokens of each prompt where a body contains a list of them; `None` where it is one text."""
    prompts = body.get(endpoint.query_field)
    if endpoint.form != "prompts" or not isinstance(prompts, list):
        return None
    if all(isinstance(item, int) for item in prompts):
        return [len(prompts)]
    return [
        len(item) if isinstance(item, list) else tokens_of(item) if isinstance(item, str) else 1
        for item in prompts
    ]


def _needs(endpoint: Endpoint, body: Mapping[str, Any]) -> frozenset[str]:
    needs = set(endpoint.needs)
    if body.get("tools"):
        needs.add("tools")
    if _media_in(endpoint, body):
        needs.add("vision")
    return frozenset(needs)


def _media_in(endpoint: Endpoint, body: Mapping[str, Any]) -> int:
    return _media(body.get("messages")) + (_media(body.get("input")) if endpoint.form == "input" else 0)


def _media(value: Any, depth: int = DEEPEST_PART) -> int:
    """Media in messages, beside text: by a part's type, or by a field that an engine reads anyway."""
    if depth == 0:
        return 0
    if isinstance(value, list):
        return sum(_media(item, depth - 1) for item in value)
    if not isinstance(value, dict):
        return 0
    kind = value.get("type")
    if (isinstance(kind, str) and kind in MEDIA) or not MEDIA.isdisjoint(value):
        return 1
    return sum(_media(value.get(field), depth - 1) for field in ("content", "output"))
