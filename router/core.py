"""The values that travel between modules and processes.

Frozen dataclasses and numpy arrays with their shapes, without logic.
Imports nothing of the package except its errors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from router.errors import InputError, NoEligibleExpertError, PreferenceError

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.integer]
ArmName = Literal["canary", "control"]
"""The canary's part of the traffic, and that of the policy in effect."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """How a caller weighs quality against cost and latency; `None` means "not set".

    `cost_weight` ≥ 0: utility = score − cost_weight × cost / (most expensive eligible cost of the query).
    `min_quality` in [0, 1]: the cheapest expert whose score is at least this fraction of the best.
    `max_cost_usd`, `max_ttft_ms`, `max_latency_ms`: experts expected to exceed them are excluded.
    `latency_weight` ≥ 0: score that each second until the end of the answer takes off the utility, a second
    in a queue three times; among those that reach `min_quality`, it is added to the relative cost.

    Raises:
        PreferenceError: a value is out of range, or `cost_weight` and `min_quality` come together.
    """

    cost_weight: float | None = None
    min_quality: float | None = None
    max_cost_usd: float | None = None
    max_ttft_ms: float | None = None
    latency_weight: float | None = None
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        for name in (preference.name for preference in fields(self)):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value >= 0):
                raise PreferenceError(f"{name} must be a finite number of at least 0, found {value!r}")
        if self.min_quality is not None and self.min_quality > 1:
            raise PreferenceError(f"min_quality must be in [0, 1], found {self.min_quality!r}")
        if self.cost_weight is not None and self.min_quality is not None:
            raise PreferenceError("cost_weight and min_quality exclude each other: give one of them")

    def over(self, default: "Preferences") -> "Preferences":
        """These preferences, with unset values taken from `default`.

        A `cost_weight` that is set also overrides the default's `min_quality`, and the other way round.
        """
        if self is UNSET or self == UNSET:
            return default
        sets_trade = self.cost_weight is not None or self.min_quality is not None
        trade = self if sets_trade else default
        return Preferences(
            cost_weight=trade.cost_weight,
            min_quality=trade.min_quality,
            max_cost_usd=self.max_cost_usd if self.max_cost_usd is not None else default.max_cost_usd,
            max_ttft_ms=self.max_ttft_ms if self.max_ttft_ms is not None else default.max_ttft_ms,
            latency_weight=self.latency_weight if self.latency_weight is not None else default.latency_weight,
            max_latency_ms=self.max_latency_ms if self.max_latency_ms is not None else default.max_latency_ms,
        )

    @property
    def reads_times(self) -> bool:
        """Whether the time to the end of the answer counts."""
        return bool(self.latency_weight) or self.max_latency_ms is not None

    @property
    def limits_times(self) -> bool:
        """Whether slow experts are excluded."""
        return self.max_ttft_ms is not None or self.max_latency_ms is not None


UNSET = Preferences()


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """An expert's speed and load as a caller sees them now, for one request."""

    wait_s: float = 0.0
    """Seconds to the first token that no token of the prompt accounts for: queue, slot, overhead."""
    prefill_s_per_token: float = 0.0
    """Seconds for each token of the prompt that is not cached."""
    s_per_output_token: float = 0.0
    cached_tokens: int = 0
    """Tokens of the prompt whose prefill the expert keeps from an earlier request."""
    added_wait_s: float = 0.0
    """What one more request before this one adds to `wait_s`, beyond `free_slots`."""
    added_s_per_output_token: float = 0.0
    """What one more adds to `s_per_output_token`, within them: those beyond wait."""
    free_slots: float = 0.0
    """Requests that may come before this one without a wait."""
    queued_s: float = 0.0
    """The part of `wait_s` that the request spends in a queue."""

    def faded(self, share: float) -> Self:
        """The same with a share of its times only."""
        if share == 1:
            return self
        return replace(
            self,
            wait_s=share * self.wait_s,
            queued_s=share * self.queued_s,
            prefill_s_per_token=share * self.prefill_s_per_token,
            s_per_output_token=share * self.s_per_output_token,
        )


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """One request to a policy: which expert is best for this query?

    Eligibility that only the caller can know (capabilities, caller's lists, breaker state)
    arrives in `excluded`; the policy adds its own exclusions (cost and latency limits).
    """

    query: str
    """The text that the policy reads: the human's message, without the harness around it."""
    preferences: Preferences = UNSET
    excluded: Mapping[str, str] = field(default_factory=dict)
    """Expert → the caller's reason to exclude it."""
    prompt_tokens: int = 0
    """The caller's estimate of the whole prompt's length, 0 when unknown."""
    max_tokens: int | None = None
    """The caller's bound on the answer, in tokens."""
    ttft_ms: Mapping[str, float] = field(default_factory=dict)
    """Expert → expected time to first token as the caller sees it now, in milliseconds."""
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    """Expert → expected time to the end of its answer as the caller sees it now, in milliseconds."""
    load: Mapping[str, ExpertLoad] = field(default_factory=dict)
    """Expert → its load now; where it is known, times follow from it and from the expected tokens."""
    plans: bool = False
    """Whether the caller can carry out plans; without it only experts are ranked."""
    max_hold_ms: float | None = None
    """The longest time that the caller may hold an answer back; longer plans are excluded."""
    request_id: str = ""
    """The caller's id of the request, for records of it; empty where there is none to record."""
    unit: str | None = None
    """The conversation, else the request, that draws and canaries are decided for; `None` for neither."""
    explore: bool = True
    """Whether it may be drawn; a canary may serve it in any case."""


class ExpertView(NamedTuple):
    """One expert in a decision: its prediction for the query, and what it was ranked by.

    A tuple, because a batch makes one for each of its queries and experts, which takes nine times as long for
    a frozen dataclass.
    """

    score: float | None
    """Predicted quality in [0, 1]; `None` where no policy scored it."""
    cost_usd: float | None
    """Expected cost of the whole request in US dollars; `None` without a price."""
    ttft_ms: float | None
    """Expected time to first token in milliseconds; `None` where unknown."""
    eligible: bool
    excluded_because: str | None = None
    utility: float | None = None
    """`score` less the penalties for cost and time; `None` where no policy scored it."""
    cost_penalty: float = 0.0
    """What `utility` subtracts from `score` for the cost."""
    latency_penalty: float = 0.0
    """What it subtracts for the time, that of requests behind it included."""
    latency_ms: float | None = None
    """Expected time to the end of the answer in milliseconds; `None` where unknown or not needed."""
    wait_ms: float | None = None
    """What of it is due to other requests, likewise."""


@dataclass(frozen=True, slots=True)
class PlanView:
    """One plan in a decision: what is predicted of it as a candidate, and what it consists of."""

    view: ExpertView
    """Its score, and cost and time composed from its members'."""
    ask: tuple[str, ...]
    """The experts that are called at once."""
    samples: int
    """Answers of the one member, where above 1."""
    otherwise: str
    """The expert whose answer is final where the members' is rejected."""
    p_accept: float
    """Predicted probability that the members' answer is accepted."""
    hold_ms: float | None
    """Expected time until that is known; `None` where unknown."""


@dataclass(frozen=True, slots=True)
class Exploration:
    """How often a decision is left to chance.

    Raises:
        InputError: a value is outside [0, 1].
    """

    share: float
    """Share of units whose decision is drawn."""
    quality_floor: float = 0.9
    """Candidates of the draw have at least this fraction of the best eligible expert's score."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("share", "quality_floor"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"{name} must be in [0, 1], found {value!r}")


@dataclass(frozen=True, slots=True)
class Draw:
    """A decision with its randomness."""

    action: str
    """The candidate that is chosen."""
    explored: bool
    """Whether the draw chose it; true also where it drew what would have been chosen anyway."""
    propensities: Mapping[str, float]
    """Candidate → probability of being chosen, above 0; they sum to 1."""
    exploration: Exploration
    """Under which it was drawn."""
    unit: str
    """What it was drawn for: a conversation, or a request without one."""


@dataclass(frozen=True, slots=True)
class Arm:
    """The part of the traffic that a decision belongs to while a canary runs."""

    canary: str
    """Id of the canary."""
    name: ArmName


@dataclass(frozen=True, slots=True)
class Decision:
    """A policy's decision: the ranking of the eligible candidates, best first, and a view of each."""

    ranking: tuple[str, ...]
    """Eligible experts, and plans where the request allows them, best first; empty where none is eligible."""
    experts: Mapping[str, ExpertView]
    """The whole pool."""
    policy_id: str
    unfamiliar: bool = False
    """The query lies far from all training data, so scores were shrunk to the pool's means."""
    preferences: Preferences = Preferences()
    """The preferences in effect: the request's over the policy's default."""
    required_score: float | None = None
    """The score that `min_quality` requires; `None` without `min_quality`."""
    plans: Mapping[str, PlanView] = field(default_factory=dict)
    """Every plan of the policy."""
    draw: Draw | None = None
    """How far the first choice was left to chance; `None` where it could not be."""
    arm: Arm | None = None
    """`None` while no canary runs."""

    @property
    def candidate(self) -> str:
        """The first choice, an expert or a plan.

        Raises:
            NoEligibleExpertError: no expert is eligible.
        """
        if not self.ranking:
            raise NoEligibleExpertError(self.exclusions)
        return self.ranking[0]

    @property
    def expert(self) -> str:
        """The expert that most probably writes the response.

        Raises:
            NoEligibleExpertError: no expert is eligible.
        """
        first = self.candidate
        if first not in self.plans:
            return first
        plan = self.plans[first]
        return plan.ask[0] if plan.p_accept >= 0.5 else plan.otherwise

    @property
    def exclusions(self) -> dict[str, str]:
        """Ineligible expert → the reason."""
        return {
            name: view.excluded_because or "not eligible"
            for name, view in self.experts.items()
            if not view.eligible
        }


@dataclass(frozen=True, slots=True)
class QueryBatch:
    """Queries as the input of a method: their texts and embeddings, row by row.

    Raises:
        InputError: the two differ in length, or embeddings are not a matrix.
    """

    texts: tuple[str, ...]
    embeddings: FloatArray  # [n, dimension], rows of unit length

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or len(self.texts) != len(self.embeddings):
            raise InputError(
                f"{len(self.texts)} texts need embeddings of shape [{len(self.texts)}, dimension], "
                f"found {list(self.embeddings.shape)}"
            )

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: IntArray) -> "QueryBatch":
        """A copy with only these rows, in this order."""
        return QueryBatch(tuple(self.texts[int(i)] for i in rows), self.embeddings[rows])


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Training data of a method; columns are the candidate pool's experts, in its order."""

    queries: QueryBatch
    quality: FloatArray  # [n, experts] in [0, 1]; NaN where not measured
    costs_usd: FloatArray | None = None  # [n, experts], US$; NaN where not measured
    tasks: tuple[str, ...] | None = None
    """A label of each query's task, for methods that learn to predict it; never an input of `score`."""

    def __len__(self) -> int:
        return len(self.queries)

    def take(self, rows: IntArray) -> "TrainingSet":
        """A copy with only these rows, in this order."""
        return TrainingSet(
            queries=self.queries.take(rows),
            quality=self.quality[rows],
            costs_usd=None if self.costs_usd is None else self.costs_usd[rows],
            tasks=None if self.tasks is None else tuple(self.tasks[int(i)] for i in rows),
        )
