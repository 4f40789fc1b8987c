"""Probing: which probes, what they may cost, how responses are graded, how outcomes join the prior."""

import re

import numpy as np
import pytest

from router.data.dataset import to_dataset
from router.errors import InputError
from router.policy import Policy
from router.priors.abilities import ability_prior
from router.priors.catalogue import KINDS
from router.priors.probes import check_of, load_probes
from router.priors.probing import CHECKS, as_queries, choose, estimate, grade, joined
from router.priors.update import Belief
from tests.router.priors.test_start import EXPERTS, FakeEncoder, made


@pytest.fixture(scope="module")
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture(scope="module")
def policy(encoder: FakeEncoder) -> Policy:
    return made(encoder, EXPERTS)


@pytest.fixture(scope="module")
def belief() -> Belief:
    return Belief.of(ability_prior().of([expert.facts for expert in EXPERTS]))


def response(reference: str, check: str = "numeric") -> dict[str, str]:
    return {"query": "q", "response": reference, "reference": "42", "check": check}


def test_chosen_probes_can_be_checked_and_are_different(policy: Policy, belief: Belief) -> None:
    found = choose(policy, belief, load_probes(), count=60)

    assert len({probe.id for probe in found}) == 60
    assert {probe.check for probe in found} <= set(CHECKS)


def test_probes_of_every_shipped_check_are_valid() -> None:
    for probe in load_probes():
        if probe.check == "pattern":
            re.compile(probe.reference)
        assert probe.reference or probe.check is None


@pytest.mark.parametrize(
    ("text", "check", "quality"),
    [
        ("It is 41, no: 42.\nAnswer: 42", "numeric", 1.0),
        ("Answer: 42\nAnswer: 43", "numeric", 0.0),
        ("the answer is = {'a': 42}", "contains", 1.0),
        ("4 2", "contains", 0.0),
        ("42", "pattern", 1.0),
        ("42 and more", "pattern", 0.0),
    ],
)
def test_responses_are_graded_by_their_last_answer(text: str, check: str, quality: float) -> None:
    assert grade(response(text, check)) == quality


def test_an_unknown_check_is_an_error() -> None:
    with pytest.raises(InputError):
        grade(response("42", "smell"))


@pytest.mark.parametrize(
    ("reference", "check"),
    [("42", "numeric"), ("1,200.5", "numeric"), ("Paris", "contains"), ("3 pens", "contains")],
)
def test_own_references_have_a_check(reference: str, check: str) -> None:
    assert check_of(reference) == check


def test_the_estimate_bounds_the_cost(policy: Policy, belief: Belief, encoder: FakeEncoder) -> None:
    queries = as_queries(choose(policy, belief, load_probes(), count=20))
    embeddings = encoder.encode([query["query"] for query in queries])

    found = estimate(policy, embeddings, queries, max_tokens=100)

    assert 0 < found.expected_usd <= found.at_most_usd
    assert found.at_most_usd >= 20 * 100 * (0.2 + 3.0) / 1e6
    assert found.unpriced == ("mystery",)


def test_outcomes_move_the_policy(policy: Policy, belief: Belief, encoder: FakeEncoder) -> None:
    of_kind = {kind: [p for p in load_probes() if p.kind == kind][:60] for kind in ("code", "knowledge")}
    probes = [*of_kind["code"], *of_kind["knowledge"]]
    rows = [
        {
            "query_id": probe.id,
            "query": probe.query,
            "expert": name,
            "quality": float((name == "mystery") == (probe.kind == "code")),
            "completion_tokens": 50,
        }
        for probe in probes
        for name in policy.pool.names
    ]

    after = joined(policy, belief, to_dataset(rows), encoder.encode([probe.query for probe in probes]))
    code = np.asarray(after.method.arrays()["means"])[KINDS.index("code")]

    assert code.argmax() == 2
    assert after.training["n_queries"] == len(probes)
    assert after.training["prior"] == policy.training["prior"]
