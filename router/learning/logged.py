"""Logged decisions joined with what became known of them later: judgements, ratings, shadow scores."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from router.learning.record import DecisionRecord, FeedbackRecord, JudgementRecord, Record, ShadowRecord

RewardKind = Literal["judged", "ratings"]
ANSWERED = "200"
LARGEST_GAP = 1e-6
"""Of the sum of a decision's probabilities from 1."""


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """One decision with its reward."""

    record: DecisionRecord
    propensities: Mapping[str, float]
    action: str
    quality: float
    sampling_rate: float

    @property
    def unit(self) -> str:
        """The conversation, else the request."""
        return self.record.conversation or self.record.request_id


@dataclass(frozen=True)
class LoggedTraffic:
    """What a log says of decisions that could be drawn."""

    decisions: tuple[LoggedDecision, ...]
    """With a reward, in the order of time."""
    shadows: Mapping[tuple[str, str], ShadowRecord] = field(default_factory=dict)
    """(request, policy) → scores of that policy."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Why decisions are left out → their number."""

    @property
    def candidates(self) -> tuple[str, ...]:
        """Every candidate that some decision could choose, by name."""
        return tuple(sorted({name for one in self.decisions for name in one.propensities}))


def traffic_of(records: Iterable[Record], *, reward: RewardKind) -> LoggedTraffic:
    """Join the records of a log.

    Left out, and counted, are decisions that named their expert or a preset (its preferences are not in
    the log), those without probabilities, those without a response, and those without a reward. A response
    of a fallback counts for the candidate that was chosen: that is what choosing it led to.
    """
    decisions: dict[str, DecisionRecord] = {}
    rewards: dict[tuple[str, str | None], FeedbackRecord] = {}
    judged: dict[str, JudgementRecord] = {}
    shadows: dict[tuple[str, str], ShadowRecord] = {}
    for record in sorted(records, key=lambda record: record.time):
        if isinstance(record, DecisionRecord):
            decisions.setdefault(record.request_id, record)
        elif isinstance(record, FeedbackRecord):
            rewards[record.request_id, record.key] = record
        elif isinstance(record, JudgementRecord):
            judged[record.request_id] = record
        else:
            shadows[record.request_id, record.policy] = record
    kept, left_out = [], Counter[str]()
    for record in decisions.values():
        why = _obstacle(record)
        if why is not None:
            left_out[why] += 1
            continue
        found = _judgement(record, judged) if reward == "judged" else _rating(record, rewards)
        if found is None:
            left_out["without a judgement" if reward == "judged" else "without a rating"] += 1
        elif record.propensities is not None and record.action is not None:
            kept.append(LoggedDecision(record, record.propensities, record.action, *found))
    return LoggedTraffic(tuple(kept), shadows, dict(left_out))


def reward_in(records: Iterable[Record]) -> RewardKind:
    """What to measure quality by: judgements where the log has any, else ratings."""
    return "judged" if any(isinstance(one, JudgementRecord) for one in records) else "ratings"


def rewards_of(records: Iterable[Record], *, reward: RewardKind) -> dict[str, float]:
    """Request → quality of its response, whether or not the decision could be drawn; the last one counts."""
    kind = JudgementRecord if reward == "judged" else FeedbackRecord
    ordered = sorted(records, key=lambda record: record.time)
    return {one.request_id: one.quality for one in ordered if isinstance(one, kind)}


def _obstacle(record: DecisionRecord) -> str | None:
    """Why a decision cannot be judged; `None` where it can."""
    if record.reason == "named" or (record.model != "auto" and record.model == record.expert):
        return "with a named expert"
    if record.model != "auto":
        return "with a preset"
    if record.propensities is None or record.action is None:
        return "without probabilities"
    if record.propensities.get(record.action, 0.0) <= 0 or (
        abs(sum(record.propensities.values()) - 1) > LARGEST_GAP
    ):
        return "with impossible probabilities"
    if record.outcome != ANSWERED:
        return "without a response"
    return None


def _judgement(record: DecisionRecord, judged: Mapping[str, JudgementRecord]) -> tuple[float, float] | None:
    found = judged.get(record.request_id)
    return None if found is None else (found.quality, found.sampling_rate)


def _rating(
    record: DecisionRecord, rated: Mapping[tuple[str, str | None], FeedbackRecord]
) -> tuple[float, float] | None:
    """The rating by the same key, of the expert that responded."""
    found = rated.get((record.request_id, record.key))
    if found is None or found.expert not in {None, record.expert}:
        return None
    return found.quality, 1.0


def greedy(propensities: Mapping[str, float]) -> str:
    """What a decision would have chosen without exploration, where the draw's share is below a half."""
    return max(propensities, key=lambda name: propensities[name])


def units_of(decisions: Sequence[LoggedDecision]) -> list[int]:
    """A number for each decision's conversation."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(one.unit, len(numbers)) for one in decisions]
