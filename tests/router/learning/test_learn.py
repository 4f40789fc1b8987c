"""Learning from a log: what is better is kept, what is not changes nothing, every gate is counted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.errors import InputError
from router.learning.estimators import Estimate, Interval
from router.learning.gates import BUDGET, FILE, Gate, alpha_of, passes, read_gates, record
from router.learning.learn import LEAST_CONVERSATIONS, Learned, learn, of_policy, outcomes, parts
from router.learning.logged import LoggedTraffic, traffic_of
from router.learning.record import DecisionRecord, JudgementRecord, Record
from router.policy import Policy
from router.training.train import train
from tests.router.data_sets import dataset, embeddings
from tests.router.learning.test_what_if import ENCODER, embed, log_of


@pytest.fixture(scope="module")
def static() -> Policy:
    data = dataset(120, seed=9)
    policy = train(data, embeddings(data.texts), ENCODER, method="fixed")
    return replace(policy, policy_id="0123456789ab")


def traffic(records: list[Record]) -> LoggedTraffic:
    return traffic_of(records, reward="judged")


def learned(records: list[Record], static: Policy) -> Learned:
    return learn(traffic(records), static, embed, method="knn")


def test_a_better_policy_is_learned_from_one_expert_per_query(static: Policy) -> None:
    found = learned(log_of(static, 3000), static)

    assert found.kept
    assert found.gate.gain is not None
    assert found.gate.gain.low > 0.05
    assert found.candidate.preferences == static.preferences
    assert found.trained_on == 1800


def test_labels_that_favour_no_expert_change_nothing(static: Policy) -> None:
    rng = np.random.default_rng(0)
    records = [
        replace(one, quality=float(rng.random() < 0.5)) if isinstance(one, JudgementRecord) else one
        for one in log_of(static, 3000)
    ]

    assert not learned(records, static).kept


def test_a_log_without_exploration_keeps_nothing(static: Policy) -> None:
    with pytest.raises(InputError, match="outcomes"):
        learned(log_of(static, 500, share=0.0), static)


def test_no_conversation_and_no_query_is_in_both_parts() -> None:
    records: list[Record] = []
    for number in range(300):
        records += [
            DecisionRecord(
                request_id=str(number), conversation=f"c{number // 3}", query=f"q{number % 250}",
                model="auto", expert="a", action="a", propensities={"a": 0.5, "b": 0.5},
                outcome="200", policy="p",
            ),
            JudgementRecord(request_id=str(number), quality=1.0),
        ]  # fmt: skip

    earlier, later = parts(traffic(records))

    assert {one.unit for one in earlier.decisions}.isdisjoint(one.unit for one in later.decisions)
    assert {one.record.query for one in earlier.decisions}.isdisjoint(
        one.record.query for one in later.decisions
    )
    assert (len(earlier.decisions), len(later.decisions)) == (180, 70)


def test_too_few_conversations_are_bad_input(static: Policy) -> None:
    with pytest.raises(InputError, match=f"at least {LEAST_CONVERSATIONS} conversations"):
        learned(log_of(static, LEAST_CONVERSATIONS - 1), static)


def test_learning_without_texts_says_what_to_log(static: Policy) -> None:
    with pytest.raises(InputError, match=r"log\.queries: true"):
        outcomes(traffic(log_of(static, 60, query=None)).decisions)


def test_a_log_of_another_policy_is_bad_input(static: Policy) -> None:
    with pytest.raises(InputError, match=r"of 0123456789ab: name the policy in effect"):
        of_policy(traffic(log_of(static, 60)), "another")


def test_the_error_budget_is_divided_among_all_gates() -> None:
    assert alpha_of(0) == BUDGET / 2
    assert sum(alpha_of(tried) for tried in range(10_000)) == pytest.approx(BUDGET, rel=1e-3)


def test_gates_are_recorded_in_order(tmp_path: Path) -> None:
    for number in range(3):
        record(tmp_path, Gate("2026-11-29", "old", f"new {number}", alpha_of(number), False))

    assert [gate.candidate for gate in read_gates(tmp_path)] == ["new 0", "new 1", "new 2"]


def test_a_damaged_record_of_gates_is_not_ignored(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"time": "now"}), encoding="utf-8")

    with pytest.raises(InputError, match="damaged"):
        read_gates(tmp_path)


@pytest.mark.parametrize(("low", "kept"), [(-0.01, False), (0.0, False), (0.01, True)])
def test_a_gate_passes_only_with_its_lower_bound_above_zero(low: float, kept: bool) -> None:
    assert passes(Estimate(500.0, 0.0, None, gain=Interval(0.1, low, 0.2))) == kept
    assert not passes(Estimate(50.0, 0.0))
