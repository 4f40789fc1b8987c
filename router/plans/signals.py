"""Signals of the answers at hand: what an acceptance model reads, from texts and log-probabilities.

Pure and cheap: replay in training and the ingress in service compute them by the same code.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

from router.answers import final_answer
from router.plans.plan import Plan

MOST_LOGPROBS = 4096
"""Log-probabilities of one answer that are read."""
TAIL = 8
"""Last tokens of an answer that count as its final answer's, for their log-probabilities."""
COMPLETE = frozenset({"stop", "tool_calls", "function_call", "end_turn", "stop_sequence", "tool_use"})
"""Finish reasons of an answer that its model ended itself."""
REFUSAL_WITHIN = 400
"""First characters of an answer that are searched for a model's refusal."""
PAIR = 2
_REFUSED = re.compile(
    r"\b(?:I(?:['’]m| am) (?:sorry|unable)"
    r"|I (?:cannot|can['’]t|won['’]t) (?:help|assist|comply|provide|answer)"
    r"|as an AI\b|(?:cannot|can['’]t) be (?:answered|determined))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfAnswer:
    """What one answer shows by itself; `None` where it is unknown."""

    characters: int | None = None
    mean_logprob: float | None = None
    least_logprob: float | None = None
    final_logprob: float | None = None
    """Mean over the last tokens."""
    complete: bool | None = None
    """Whether the model ended the answer itself; false where a limit cut it off."""
    refused: bool | None = None
    """Whether it looks like a model's refusal."""
    valid: bool | None = None
    """Whether it has the form that the request requires (schema, tool calls)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading(OfAnswer):
    """One answer of a member, read."""

    final: str | None = None
    """The final answer, in the form in which equal ones are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals(OfAnswer):
    """What is known of the answer at hand, by itself and beside the others."""

    score: float | None = None
    """The policy's own score of the expert that wrote it, for this query."""
    agreement: float | None = None
    """Two members: 1 where the final answers are equal, else 0. A vote: the majority's share."""
    has_answer: bool | None = None
    """Whether a final answer can be read from it."""


def read(
    text: str,
    *,
    logprobs: Sequence[float] | None = None,
    finish_reason: str | None = None,
    valid: bool | None = None,
) -> Reading:
    """Read one complete answer.

    Args:
        text: what the model wrote for the client, without its reasoning.
        logprobs: natural logarithms, one for each completion token; `None` where unknown.
        finish_reason: as the endpoint returned it.
        valid: whether it has the required form; `None` where the request requires none.
    """
    mean, least, last = _certainty(logprobs)
    return Reading(
        final=final_answer(text),
        characters=len(text),
        mean_logprob=mean,
        least_logprob=least,
        final_logprob=last,
        complete=None if finish_reason is None else finish_reason in COMPLETE,
        refused=_REFUSED.search(text[:REFUSAL_WITHIN]) is not None,
        valid=valid,
    )


def read_beginning(logprobs: Sequence[float], tokens: int) -> Reading:
    """Read the first tokens of a streaming response, by their log-probabilities alone."""
    mean, least, last = _certainty(logprobs[:tokens])
    return Reading(mean_logprob=mean, least_logprob=least, final_logprob=last)


def at_hand(plan: Plan, readings: Sequence[Reading]) -> int:
    """Position of the answer that the plan may accept: the first, or of a majority the first."""
    if not plan.is_vote:
        return 0
    finals = [reading.final for reading in readings]
    counted = Counter(final for final in finals if final is not None)
    return finals.index(counted.most_common(1)[0][0]) if counted else 0


def signals_of(plan: Plan, readings: Sequence[Reading], *, score: float | None) -> Signals:
    """The signals of a plan's answers.

    Args:
        plan: whose members answered.
        readings: one for each member in the order of `ask`, or for each sample of a vote.
        score: the policy's score of the expert that wrote the answer at hand.
    """
    reading = readings[at_hand(plan, readings)]
    whole = plan.hold_tokens is None
    return Signals(
        score=score,
        agreement=_agreement([one.final for one in readings]),
        has_answer=(reading.final is not None) if whole else None,
        **{field.name: getattr(reading, field.name) for field in fields(OfAnswer)},
    )


def _agreement(finals: Sequence[str | None]) -> float | None:
    """The share of answers that agree with the most frequent one; of two, 1 or 0."""
    if len(finals) < PAIR:
        return None
    counted = Counter(final for final in finals if final is not None)
    most = max(counted.values(), default=0)
    return float(most == PAIR) if len(finals) == PAIR else most / len(finals)


def _certainty(logprobs: Sequence[float] | None) -> tuple[float | None, float | None, float | None]:
    """Mean and least log-probability, and the mean over the last tokens."""
    known = [value for value in (logprobs or ())[:MOST_LOGPROBS] if math.isfinite(value)]
    if not known:
        return None, None, None
    last = known[-TAIL:]
    return sum(known) / len(known), min(known), sum(last) / len(last)
