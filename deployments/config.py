"""Settings of the graph, one home each: builder `args` (shape) and `user_config` (what runs).

Pure pydantic: knows nothing of Ray. Unknown keys are rejected at every level. Replicas and
autoscaling belong to Serve's own `deployments[]` and are never set here.
"""

import re
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from deployments.contracts.forbidden_fields import FORBIDDEN_FIELDS
from deployments.contracts.harness_blocks import HARNESS_TAGS, plain
from deployments.contracts.routing_options import PreferenceFields
from deployments.engine_settings import ExpertName, PoolArgs
from deployments.settings import Settings
from deployments.variant_settings import VariantSettings
from router.core import Exploration
from router.experts import Price
from router.learning.canary import canary_id
from router.validation import HIDDEN, AmountUSD

AUTO = "auto"
"""The model name for which the policy chooses."""
PageWhen = bool | Literal["loopback"]
"""Whether there is a page: for all requests, for none, or for those addressed to loopback."""
Seconds = Annotated[float, Field(gt=0, le=86_400)]
TagName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Text = Annotated[str, Field(min_length=1)]
Requests = Annotated[int, Field(ge=1, le=1_000_000)]
"""A number of requests; a larger one would be no limit."""

REQUEST_TIMEOUT_S: float = 600
"""Default deadline of a request. A replica that stops has as long for its open responses, unless its
`graceful_shutdown_timeout_s` says otherwise."""


class RouterArgs(Settings):
    """Shape of the router deployment."""

    encoder: str = "default"
    """`default`: the policy's; else `static`, a folder or a hub id with the weights that the policy names."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the encoder runs; `auto` takes a GPU where the replica has one."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Processor threads of the encoder per replica."""
    max_batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Queries encoded and scored in one pass at most; of more than eight that wait, half go first."""
    batch_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """How long a batch waits to fill; 0: a batch is what arrived while the last one was scored."""
    num_cpus: Annotated[float, Field(ge=0)] = 0.0
    """Processors that Ray reserves for a replica."""
    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    """May be a fraction, so that a router shares a GPU with an expert."""
    pool: PoolArgs | None = None
    """Where its replicas may run; default: anywhere."""
    max_replicas_per_node: Annotated[int, Field(ge=1, le=100)] | None = None
    """Anti-affinity: the most replicas on one node."""


class IngressArgs(Settings):
    """Shape of the ingress deployment."""

    max_body_mib: Annotated[float, Field(gt=0, le=1024)] = 16
    """A larger request body is rejected with 413."""
    max_bodies_mib: Annotated[float, Field(gt=0, le=1024 * 1024)] = 32
    """Bodies of all requests of a replica that await their response; one that does not fit waits unread.
    While it is parsed and sent, a body takes about six times its size."""
    router_deadline_ms: Annotated[float, Field(gt=0, le=60_000)] = 150
    """After it the policy's static ranking is used, and `x-router-reason` says so."""
    request_timeout_s: Seconds = REQUEST_TIMEOUT_S
    """Deadline of a request, unless the client sends a shorter one; then 504."""
    upload_timeout_s: Seconds = 30
    """A body that takes longer to arrive is rejected with 408."""
    page: PageWhen = "loopback"
    """The page at /, /board and /policy; `false` removes it."""
    num_cpus: Annotated[float, Field(ge=0)] = 0.0
    """Processors that Ray reserves for a replica."""
    pool: PoolArgs | None = None
    """Where its replicas may run; default: anywhere."""
    max_replicas_per_node: Annotated[int, Field(ge=1, le=100)] | None = None
    """Anti-affinity: the most replicas on one node."""

    @property
    def max_body_bytes(self) -> int:
        """The largest request body."""
        return int(self.max_body_mib * 1024 * 1024)

    @property
    def max_bodies_bytes(self) -> int:
        """The bodies of all requests in flight."""
        return int(self.max_bodies_mib * 1024 * 1024)


class AppArgs(Settings):
    """`args` of the application `to-router`."""

    router: RouterArgs = RouterArgs()
    """Shape of the router deployment."""
    ingress: IngressArgs = IngressArgs()
    """Shape of the ingress deployment."""


class PreferenceSettings(PreferenceFields):
    """Preferences by name, as a preset or as the served default."""


class PriceSettings(Settings):
    """US dollars per million tokens."""

    input: AmountUSD
    """Price of prompt tokens."""
    output: AmountUSD
    """Price of completion tokens."""

    def as_price(self) -> Price:
        return Price(self.input, self.output)


def _check_url(url: str) -> None:
    """Raise for a base URL to which no path can be appended, or that has no host."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("url has no host")
    if parts.username or parts.password:
        # Without the URL: it holds a password.
        raise PydanticCustomError(HIDDEN, "url must not hold credentials: use key_env or key_file")
    if parts.query or parts.fragment:
        raise ValueError("url must have no query and no fragment: paths are appended to it")


class ExpertTarget(VariantSettings):
    """Where an expert is: an application of this cluster, or a URL elsewhere."""

    app: str | None = None
    """Its application in this cluster, such as `expert-math`."""
    url: str | None = None
    """Or an OpenAI-compatible endpoint elsewhere, ending in `/v1`."""
    key_env: str | None = None
    """Environment variable that holds the key for `url`."""
    key_file: str | None = None
    """File that holds the key for `url`, such as a mounted secret."""
    model: str | None = None
    """The model's name at `url`, where it differs from the expert's."""
    context_window: Annotated[int, Field(gt=0)] | None = None
    """Tokens of prompt and completion together; default: as the engine reports, else the policy's."""
    capabilities: frozenset[Literal["tools", "vision", "embeddings"]] = frozenset({"tools"})
    """A request that needs more is not sent to it; images, audio and video require `vision`."""
    cold: Literal["priced", "wait", "next"] = "priced"
    """With no replica: weigh its start where time has a price, else as `next`; wait; or call the next."""
    max_in_flight: Requests | None = None
    """Requests in flight to this expert, per ingress replica; variants of one application share them."""
    description: Annotated[str, Field(max_length=200)] | None = None
    """A few words for people, which the page shows beside its name."""
    example: Annotated[str, Field(max_length=1000)] | None = None
    """A query that it is good at, which the page offers to send."""

    @model_validator(mode="after")
    def _is_a_variant(self) -> "ExpertTarget":
        if self.adapter is not None and self.app is None:
            raise ValueError("adapter belongs to an expert with an `app`")
        if self.reasoning == "off" and self.thinking_tokens is not None:
            raise ValueError("thinking_tokens bounds what `reasoning: off` switches off: set one of them")
        if self.force and not (self.set or self.reasoning or self.thinking_tokens):
            raise ValueError("force has no effect without set, reasoning or thinking_tokens: remove it")
        return self

    @field_validator("key_env")
    @classmethod
    def _no_key(cls, name: str | None) -> str | None:
        # A key in the configuration would reach every log and dashboard; nor may the error repeat it.
        looks_like_key = len(name or "") >= 24 and any(c.islower() for c in name or "")
        if name is not None and (looks_like_key or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)):
            raise PydanticCustomError(HIDDEN, "must be the name of an environment variable, not a key")
        return name

    @model_validator(mode="after")
    def _one_place(self) -> "ExpertTarget":
        if (self.app is None) == (self.url is None):
            raise ValueError("an expert is an `app` of this cluster or at a `url`: set one of them")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url must begin with http:// or https://, found {self.url!r}")
        if self.url is not None:
            _check_url(self.url)
        if self.app is not None and (self.key_env or self.key_file or self.model):
            raise ValueError("key_env, key_file and model belong to an expert with a `url`")
        if self.key_env and self.key_file:
            raise ValueError("set key_env or key_file, not both")
        return self


class Limits(Settings):
    """Bounds of one ingress replica."""

    max_in_flight: Requests = 1024
    """Requests in flight at once."""
    max_queued: Annotated[int, Field(ge=0, le=1_000_000)] = 256
    """Requests waiting for a slot; one more is rejected with 429."""
    max_queue_wait_s: Seconds = 10.0
    """A request that waited longer for a slot is rejected with 503."""
    max_messages: Annotated[int, Field(ge=1, le=1_000_000)] = 2048
    """A conversation with more messages is rejected with 400."""
    first_token_timeout_s: Seconds = 120.0
    """Silence of an expert before the next one is called, until enough of its responses were measured."""
    stream_idle_timeout_s: Seconds = 120.0
    """A stream in which the expert sends nothing for so long ends in an error event."""
    max_hold_s: Seconds = 10.0
    """Time that a plan may hold an answer back; a plan with a longer expected hold is excluded."""


class KeysSettings(Settings):
    """API keys; default: every client is served."""

    file: Text
    """Made by `to-router keys add`; relative to the project's root."""
    counts: Text | None = None
    """File of the counts, which survive a restart; default: beside `file`. Shared by all machines."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Requests in flight of each key that has no such limit of its own; default: no limit. Without one a key
    may hold every slot until another key's request waits: that one gets the next slot that comes free."""


class CorsSettings(Settings):
    """Browsers of other origins; default: none may call."""

    origins: list[str] = Field(min_length=1)
    """Such as `https://chat.example.com`; `*` for all."""


class LogSettings(Settings):
    """The decision log; default: none is kept."""

    folder: Text = "var/decisions"
    """Relative to the project's root; each machine with an ingress replica has its own."""
    max_mib: Annotated[float, Field(ge=1)] = 512
    """Disk space of all files of the folder together; the oldest are deleted first."""
    keep_days: Annotated[float, Field(gt=0)] = 30
    """Files older than this are deleted."""
    queries: bool = False
    """Whether the text of queries and of feedback comments is kept; outcomes for training need it."""
    max_queued: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Records waiting for the disk; one more is dropped and counted."""


class ForbiddenFieldsSettings(Settings):
    """Fields that are dangerous at an engine; default: requests with one of them are rejected with 400."""

    allow: dict[ExpertName, frozenset[str]] = Field(default_factory=dict)
    """Expert → the fields of the table in [errors.md](errors.md) that it accepts, such as `[priority]`."""

    @field_validator("allow")
    @classmethod
    def _known(cls, allow: dict[str, frozenset[str]]) -> dict[str, frozenset[str]]:
        if unknown := sorted(frozenset().union(*allow.values()) - FORBIDDEN_FIELDS.keys()):
            raise ValueError(
                f"{', '.join(unknown)} is not forbidden; forbidden fields: {', '.join(FORBIDDEN_FIELDS)}"
            )
        return allow


class QuerySettings(Settings):
    """What of a conversation a policy reads: [routing.md](routing.md) has the rules."""

    leave_out: frozenset[TagName] = Field(default_factory=frozenset)
    """Tags of a harness beside the known ones, such as `team_context`: their blocks are not read."""
    keep: frozenset[TagName] = Field(default_factory=frozenset)
    """Known tags whose blocks are read all the same."""

    @field_validator("keep")
    @classmethod
    def _known(cls, keep: frozenset[str]) -> frozenset[str]:
        if unknown := sorted(name for name in keep if plain(name) not in HARNESS_TAGS):
            raise ValueError(f"{', '.join(unknown)} is read anyway: no known tag of a harness")
        return keep

    @cached_property
    def harness_tags(self) -> frozenset[str]:
        """The tags whose blocks are not read, as `plain` writes them."""
        return HARNESS_TAGS.union(map(plain, self.leave_out)) - set(map(plain, self.keep))


class IngressConfig(Settings):
    """`user_config` of the deployment `Ingress`."""

    experts: dict[ExpertName, ExpertTarget] = Field(min_length=1)
    """Name → where it is; their order is the ranking until a policy is known."""
    presets: dict[str, PreferenceSettings] = Field(default_factory=dict)
    """Model names that stand for preferences, such as `auto-cheap`."""
    limits: Limits = Limits()
    """Bounds of one ingress replica."""
    keys: KeysSettings | None = None
    """API keys; default: every client is served."""
    allow_anonymous: bool = False
    """Serve clients without a key at public host names too, and after `keys` was in effect."""
    forbidden_fields: ForbiddenFieldsSettings = ForbiddenFieldsSettings()
    """Fields that are dangerous at an engine; default: requests with one of them are rejected with 400."""
    query: QuerySettings = QuerySettings()
    """What of a conversation a policy reads."""
    cache_isolation: Literal["key", "none"] = "key"
    """With `keys`: whether the prefixes that this cluster's engines cache are shared within a key only."""
    cors: CorsSettings | None = None
    """Browsers of other origins; default: none may call."""
    log: LogSettings | None = None
    """The decision log; default: none is kept."""

    @model_validator(mode="after")
    def _names(self) -> "IngressConfig":
        if AUTO in self.experts or AUTO in self.presets:
            raise ValueError(f"{AUTO!r} is the name that routes: no expert and no preset may have it")
        if both := sorted(self.experts.keys() & self.presets.keys()):
            raise ValueError(f"a name is an expert or a preset, found both: {', '.join(both)}")
        if self.allow_anonymous and self.keys is not None:
            raise ValueError("allow_anonymous and keys exclude each other: set one of them")
        if unknown := sorted(self.forbidden_fields.allow.keys() - self.experts.keys()):
            raise ValueError(f"forbidden_fields.allow names no expert: {', '.join(unknown)}")
        return self

    @model_validator(mode="after")
    def _variants(self) -> "IngressConfig":
        for app, names in self.applications().items():
            targets = [self.experts[name] for name in names]
            variants = [target.variant for target in targets]
            for index, variant in enumerate(variants):
                if (twin := variants.index(variant)) < index:
                    raise ValueError(
                        f"{names[twin]} and {names[index]} are the same variant of {app!r}: "
                        "set what makes them different, or remove one"
                    )
            slots = {target.max_in_flight for target in targets if target.max_in_flight is not None}
            if len(slots) > 1:
                raise ValueError(
                    f"max_in_flight differs among {', '.join(names)}, which share the slots of {app!r}: "
                    "set it at one of them"
                )
        return self

    def applications(self) -> dict[str, list[str]]:
        """Application → the experts that it serves: the model itself, and its variants."""
        names: dict[str, list[str]] = {}
        for name, target in self.experts.items():
            if target.app is not None:
                names.setdefault(target.app, []).append(name)
        return names

    def max_in_flight(self, name: str) -> int | None:
        """Requests in flight to an expert's engine; `None` for no bound."""
        target = self.experts[name]
        names = [name] if target.app is None else self.applications()[target.app]
        return next((slots for each in names if (slots := self.experts[each].max_in_flight)), None)


class ExploreSettings(Settings):
    """A random draw among good experts, for a share of the requests to `auto`."""

    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of requests whose expert is drawn; 0.02 is a good start."""
    quality_floor: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Only experts whose score is at least this fraction of the best eligible one are drawn."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the draws; another seed draws for other requests."""

    def as_exploration(self) -> Exploration:
        """The same values for the library."""
        return Exploration(self.share, self.quality_floor, self.seed)


class CanarySettings(Settings):
    """Another policy for a share of the conversations, until it is worse or its time is over."""

    policy: Text
    """The policy's folder, relative to the project's root."""
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Share of the conversations that it decides for."""
    until: datetime | None = None
    """Its end, a quoted ISO 8601 date or time, UTC without an offset; default: none."""

    @field_validator("until", mode="before")
    @classmethod
    def _is_a_date(cls, value: Any) -> Any:
        if isinstance(value, int | float):
            raise PydanticCustomError("datetime_type", "Input should be a date such as '2027-01-31'")
        return value

    @field_validator("until")
    @classmethod
    def _with_offset(cls, value: datetime | None) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value

    def identity(self, policy_id: str, canary_policy_id: str) -> str:
        """Id of this canary against a policy in effect; a rollback holds for it alone."""
        until = "" if self.until is None else self.until.isoformat()
        return canary_id(policy_id, canary_policy_id, self.share, until)


class RouterConfig(Settings):
    """`user_config` of the deployment `Router`."""

    policy: Text | None = None
    """The policy's folder, relative to the project's root; default: one from [priors](start.md)."""
    preferences: PreferenceSettings | None = None
    """Default of requests without preferences; default: the policy's own."""
    prices: dict[str, PriceSettings] = Field(default_factory=dict)
    """Expert → its price; overrides the policy's."""
    experts: list[str] | None = None
    """Experts that the policy must cover; default: `/ready` compares the ingress' experts."""
    explore: ExploreSettings = Field(default_factory=ExploreSettings)
    """Random draws, which make the decision log evidence about other policies; default: none."""
    shadow: Text | None = None
    """A policy's folder: its scores of every request are logged, off the request's path; default: none."""
    shadow_folder: Text = "var/decisions"
    """Where they are logged, on each machine with a router replica; relative to the project's root."""
    canary: CanarySettings | None = None
    """Another policy for a share of the conversations; default: none."""
