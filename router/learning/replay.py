"""What a policy would have chosen on logged traffic, from the least that the log must hold for it.

In this order: the log's own decisions by that policy, its shadow scores, the logged embedding where the
policy reads nothing else, the text of the query.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

import numpy as np

from router.core import ExpertLoad, FloatArray, Preferences, QueryBatch, RouteRequest
from router.encoders import EncoderSpec
from router.errors import InputError, PreferenceError
from router.learning.logged import LoggedDecision, LoggedTraffic, greedy
from router.learning.record import DecisionRecord
from router.policy import Policy

Embed = Callable[[EncoderSpec, Sequence[str]], FloatArray]
"""Texts → unit rows by that encoder."""
SHORT = 12
"""Hex digits of an encoder's hash in the log."""
PROBES = ("", "Write a Python function that adds 12 and 30.\n```python\n```")
"""Texts that differ in all that a policy reads of texts."""
LEAST_SHARE = 0.5
"""Probability from which the most probable candidate is certainly the one chosen without a draw."""


def choices(policy: Policy, traffic: LoggedTraffic, embed: Embed) -> list[str | None]:
    """The candidate that a policy chooses for each decision; `None` where none is eligible.

    Args:
        policy: the policy to judge.
        traffic: logged decisions.
        embed: encodes texts, where they are needed.

    Raises:
        InputError: the log does not hold what the policy reads; says what to log.
    """
    chosen: list[str | None] = [None] * len(traffic.decisions)
    rest = []
    for row, one in enumerate(traffic.decisions):
        shadow = traffic.shadows.get((one.record.request_id, policy.policy_id))
        if one.record.policy == policy.policy_id and _is_certain(one):
            chosen[row] = greedy(one.propensities)
        elif shadow is not None:
            chosen[row] = shadow.ranking[0] if shadow.ranking else None
        else:
            rest.append(row)
    if rest:
        records = [traffic.decisions[row].record for row in rest]
        batch = _batch(policy, records, embed)
        requests = [request_of(policy, record) for record in records]
        decisions = policy.decide(batch, requests, independent=True)
        for row, decision in zip(rest, decisions, strict=True):
            chosen[row] = decision.ranking[0] if decision.ranking else None
    return chosen


def features(traffic: LoggedTraffic, encoder: EncoderSpec, embed: Embed) -> FloatArray:
    """Features of the queries for the reward model, [n, dimension]; of dimension 0 without any."""
    records = [one.record for one in traffic.decisions]
    if all(record.query is not None for record in records):
        return embed(encoder, [record.query or "" for record in records])
    if (stored := _embeddings(records, records[0].encoder if records else None)) is not None:
        return stored
    return np.zeros((len(records), 0))


def request_of(policy: Policy, record: DecisionRecord) -> RouteRequest:
    """The request as the policy would have received it.

    Candidates that were not eligible then are not eligible now: the log holds no draw of them.
    """
    logged = record.preferences or {}
    wanted = {name.name: logged[name.name] for name in fields(Preferences) if name.name in logged}
    try:
        preferences = Preferences(**wanted)
    except (PreferenceError, TypeError) as error:
        raise InputError(f"request {record.request_id}: {error}") from error
    excluded = {name: why for name, why in (record.excluded or {}).items() if name in policy.candidates}
    load = {name: _load(values) for name, values in (record.load or {}).items()}
    return RouteRequest(
        record.query or "",
        preferences,
        excluded=excluded,
        prompt_tokens=record.prompt_tokens or 0,
        load=load,
        plans=policy.plans is not None and logged.get("plans", True) is not False,
    )


def _load(values: Mapping[str, float]) -> ExpertLoad:
    """A logged load; what a later version may add to it is left out."""
    return ExpertLoad(**{one.name: values[one.name] for one in fields(ExpertLoad) if one.name in values})  # type: ignore[arg-type]  # a count is a float in JSON


def _is_certain(one: LoggedDecision) -> bool:
    return max(one.propensities.values()) > LEAST_SHARE


def _batch(policy: Policy, records: Sequence[DecisionRecord], embed: Embed) -> QueryBatch:
    texts = [record.query for record in records]
    if all(text is not None for text in texts):
        known = tuple(text or "" for text in texts)
        return QueryBatch(known, embed(policy.encoder, known))
    found = _embeddings(records, policy.encoder.sha256[:SHORT])
    if found is None or found.shape[1] != policy.encoder.dimension:
        raise InputError(
            f"policy {policy.policy_id} cannot be judged on a log without texts, its scores or embeddings of "
            "its encoder: log texts (`log.queries: true` in user_config of Ingress)"
        )
    if not reads_embeddings_alone(policy):
        raise InputError(
            f"policy {policy.policy_id} (method {policy.method.name}) reads texts, which the log lacks: "
            "log them (`log.queries: true` in user_config of Ingress)"
        )
    return QueryBatch(("",) * len(records), found)


def reads_embeddings_alone(policy: Policy) -> bool:
    """Whether other texts with the same embeddings get the same scores and costs."""
    references = policy.guard.references[:1].astype(np.float32)
    rows = np.concatenate([references, np.eye(1, policy.encoder.dimension, dtype=np.float32)])
    batches = [QueryBatch((text,) * len(rows), rows) for text in PROBES]
    requests = [RouteRequest("", prompt_tokens=10)] * len(rows)
    scores = [policy.score(batch).quality for batch in batches]
    costs = [policy.expected_costs(batch, requests) for batch in batches]
    same_costs = costs[0] is None or costs[1] is None or np.array_equal(costs[0], costs[1], equal_nan=True)
    return bool(np.array_equal(scores[0], scores[1])) and same_costs


def _embeddings(records: Sequence[DecisionRecord], encoder: str | None) -> FloatArray | None:
    """The logged embeddings by one encoder, [n, dimension]; `None` where one is missing or broken."""
    rows: list[FloatArray] = []
    for record in records:
        if record.embedding is None or record.encoder is None or record.encoder != encoder:
            return None
        row = decoded(record.embedding)
        if row is None or (rows and len(row) != len(rows[0])):
            return None
        rows.append(row)
    return np.stack(rows) if rows else None


def encoded(embedding: FloatArray) -> str:
    """An embedding as the log stores it."""
    return base64.b64encode(embedding.astype("<f2").tobytes()).decode("ascii")


def decoded(text: str) -> FloatArray | None:
    """An embedding from the log, of unit length; `None` where it is none."""
    try:
        row = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2").astype(np.float32)
    except (binascii.Error, ValueError):
        return None
    length = float(np.linalg.norm(row))
    return row / length if np.isfinite(length) and length > 0 else None
