"""Measure experts with a few probes: choose them, estimate their cost, grade responses, join the prior.

Pure but for grading by a judge, which `router.labels` does. Sending is `router.collection`'s work.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from router import labels
from router.core import FloatArray, QueryBatch, RouteRequest
from router.costs import CostModel
from router.data.dataset import Dataset
from router.data.outcomes import Row
from router.errors import InputError
from router.guard import NoveltyGuard
from router.methods.prior import PriorRouter
from router.policy import Policy
from router.priors.catalogue import KINDS
from router.priors.probes import Probe, check_of
from router.priors.start import SEED, preference
from router.priors.update import Belief, allocation, updated

CHECKS = ("choice", "numeric", "contains", "exact", "pattern")
ENDINGS = {
    "choice": "\n\nEnd your response with one line: Answer: LETTER",
    "numeric": "\n\nEnd your response with one line: Answer: NUMBER",
    "contains": "\n\nEnd your response with one line: Answer: VALUE",
    "exact": "",
    "pattern": "",
}
"""Check → what is added to a shipped probe, so that its answer can be found."""
LEAST_FOR_COSTS = 20
"""Outcomes of every expert from which measured tokens replace the catalogue's habits."""
LONGEST_GRADED = 20_000
"""Characters of a response that a pattern reads; a longer one fails."""
_ANSWER = re.compile(r"answer\s*(?:is)?\s*[:=]\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Cost of a set of probes over all experts, in US$; experts without a price cost nothing here."""

    expected_usd: float
    at_most_usd: float
    """With every response as long as it may be."""
    unpriced: tuple[str, ...]


def choose(policy: Policy, belief: Belief, probes: Sequence[Probe], *, count: int) -> list[Probe]:
    """The probes to send: kinds where it is least certain which expert is best, tasks of a kind in turn.

    Args:
        policy: made from priors; recognises kinds.
        belief: before any outcome.
        probes: to choose from; those without a check are left out.
        count: how many.

    Raises:
        InputError: none of them can be checked.
    """
    usable = [probe for probe in probes if probe.check in CHECKS]
    if not usable:
        raise InputError("none of the probes has an answer that can be checked")
    by_kind = {kind: _in_turn([probe for probe in usable if probe.kind == kind]) for kind in KINDS}
    available = np.array([len(by_kind[kind]) for kind in KINDS], dtype=float)
    numbers = allocation(belief, count=count, available=available)
    return [probe for kind, number in zip(KINDS, numbers, strict=True) for probe in by_kind[kind][:number]]


def as_queries(probes: Sequence[Probe]) -> list[Row]:
    """The probes as rows for `collect`."""
    return [
        {
            "query_id": probe.id,
            "query": probe.query + ENDINGS[probe.check or "pattern"],
            "reference": probe.reference,
            "task": probe.kind,
            "check": probe.check,
        }
        for probe in probes
    ]


def estimate(policy: Policy, embeddings: FloatArray, queries: Sequence[Row], *, max_tokens: int) -> Estimate:
    """The cost of sending every query to every expert."""
    texts = tuple(query["query"] for query in queries)
    requests = [RouteRequest(text, max_tokens=max_tokens) for text in texts]
    costs = policy.expected_costs(QueryBatch(texts, embeddings), requests)
    longest = replace(policy.costs, tokens=None)
    prices = [expert.price for expert in policy.pool]
    unpriced = tuple(expert.name for expert in policy.pool if expert.price is None)
    prompts = longest.predict(embeddings, texts, max_tokens=[0] * len(texts))
    output = sum(price.output for price in prices if price is not None) * max_tokens * len(texts) / 1e6
    return Estimate(
        0.0 if costs is None else float(np.nansum(costs)),
        (0.0 if prompts is None else float(np.nansum(prompts))) + output,
        unpriced,
    )


def require_check(check: Any, reference: str, where: str) -> None:
    """Require that responses can be compared with a reference in this way.

    Args:
        check: the name.
        reference: the right answer, or the pattern.
        where: the file or row, for the message.

    Raises:
        InputError: the check is unknown, or the pattern is no regular expression.
    """
    if check not in CHECKS:
        raise InputError(f"{where}: check must be one of {', '.join(CHECKS)}, found {check!r:.80}")
    if check == "pattern":
        try:
            re.compile(reference)
        except (re.error, OverflowError, RecursionError) as error:
            raise InputError(f"{where}: {reference!r:.80} is no regular expression: {error}") from error


def check_for(row: Row, where: str) -> str:
    """The check that a row with a reference names, or else the one that fits its reference.

    Raises:
        InputError: as `require_check`.
    """
    check = row.get("check") or check_of(row["reference"])
    require_check(check, row["reference"], where)
    return str(check)


def grade(row: Row) -> float:
    """Quality of one response to a probe, 0 or 1.

    Raises:
        InputError: the row's check is unknown, or its pattern invalid.
    """
    check, response, reference = row.get("check", ""), row["response"], row["reference"]
    require_check(check, reference, f"query {row['query']!r:.60}")
    if check == "pattern":
        fits = len(response) <= LONGEST_GRADED and re.fullmatch(reference, response.strip()) is not None
        return float(fits)
    found = _ANSWER.split(response)
    labeler: Any = labels.get(check)
    return float(labeler.label([found[-1] if len(found) > 1 else response], [reference], [row["query"]])[0])


def joined(policy: Policy, belief: Belief, outcomes: Dataset, embeddings: FloatArray) -> Policy:
    """The policy after outcomes of its experts; unsaved.

    Args:
        policy: made from priors.
        belief: before any outcome.
        outcomes: of the policy's experts, in any order.
        embeddings: [n, dimension] of their queries, by the policy's encoder.
    """
    ordered = outcomes.only(policy.pool.names)
    method = policy.method
    if not isinstance(method, PriorRouter):
        raise InputError(f"probes join a policy from priors, found method {method.name!r}")
    after = updated(method, belief, embeddings, ordered.quality)
    batch = QueryBatch(ordered.texts, embeddings)
    means = after.score(batch).mean(axis=0)
    order = np.argsort(-means, kind="stable")
    names = policy.pool.names
    metrics = {"expert_means": {name: float(mean) for name, mean in zip(names, means, strict=True)}}
    facts = {
        **policy.training,
        "data_sha256": ordered.sha256,
        "n_queries": len(ordered),
        "best_single": names[int(order[0])],
        "metrics": metrics,
    }
    references = np.concatenate([policy.guard.references, embeddings])
    return replace(
        policy,
        method=after,
        costs=_costs(policy, ordered, embeddings),
        guard=NoveltyGuard.fit(references, means, seed=SEED),
        static_ranking=tuple(names[int(column)] for column in order),
        preferences=preference(means),
        training=facts,
        policy_id="unsaved",
    )


def _costs(policy: Policy, outcomes: Dataset, embeddings: FloatArray) -> CostModel:
    """Costs by measured tokens, where every expert has enough of them."""
    tokens = outcomes.measured.get("completion_tokens")
    if tokens is None or (np.isfinite(tokens).sum(axis=0) < LEAST_FOR_COSTS).any():
        return policy.costs
    return CostModel.fit(
        policy.pool,
        outcomes.texts,
        embeddings,
        prompt_tokens=outcomes.measured.get("prompt_tokens"),
        completion_tokens=tokens,
        costs_usd=None,
    )


def _in_turn(probes: Sequence[Probe]) -> list[Probe]:
    """One probe of each task, then the next of each."""
    by_task: dict[str, list[Probe]] = {}
    for probe in probes:
        by_task.setdefault(probe.task, []).append(probe)
    turns = max((len(of_task) for of_task in by_task.values()), default=0)
    return [one[turn] for turn in range(turns) for one in by_task.values() if turn < len(one)]
