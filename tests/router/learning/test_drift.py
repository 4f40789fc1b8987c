"""Drift: the expert that changed is named, and no other."""

import random
from dataclasses import replace

import pytest

from router.learning.drift import LEAST, Drift, distances, drift
from router.learning.record import DecisionRecord
from router.learning.replay import SHORT, encoded
from router.training.train import train
from tests.router.data_sets import dataset, embeddings
from tests.router.learning.test_what_if import ENCODER, embed


def traffic(
    n: int = 2000, *, drop: float = 0.0, factor: float = 1.0, unfamiliar: float = 0.01, seed: int = 0
) -> tuple[list[DecisionRecord], dict[str, float]]:
    """Decisions of two experts; in the later half `small` changes."""
    rng = random.Random(seed)
    records, rewards = [], {}
    for number in range(n):
        expert, later = rng.choice(["small", "large"]), number >= n // 2
        changed = later and expert == "small"
        record = DecisionRecord(
            request_id=str(number),
            policy="p",
            expert=expert,
            scores={"small": 0.7, "large": 0.8},
            costs_usd={"small": 1e-6, "large": 1e-5},
            cost_usd={"small": 1e-6, "large": 1e-5}[expert]
            * rng.uniform(0.8, 1.25)
            * (factor if changed else 1),
            unfamiliar=rng.random() < (unfamiliar if later else 0.01),
        )
        records.append(record)
        right = {"small": 0.7, "large": 0.8}[expert] - (drop if changed else 0)
        rewards[record.request_id] = float(rng.random() < right)
    return records, rewards


def found(**changes: float) -> Drift:
    return drift(*traffic(**changes), "p")  # type: ignore[arg-type]


def test_steady_traffic_has_no_drift() -> None:
    drifts = [found(seed=seed) for seed in range(20)]

    assert sum(bool(one.experts) for one in drifts) <= 1
    assert not any(finding.drifted for one in drifts for finding in one.findings if finding.expert is None)


def test_an_expert_that_became_worse_is_named_alone() -> None:
    assert found(drop=0.25).experts == ("small",)


def test_an_expert_that_became_more_expensive_is_named_alone() -> None:
    drifts = found(factor=1.5)

    assert drifts.experts == ("small",)
    assert [one.kind for one in drifts.findings if one.drifted] == ["cost"]


def test_unfamiliar_queries_are_drift_of_no_expert() -> None:
    drifts = found(unfamiliar=0.3)

    assert drifts.experts == ()
    assert [one.kind for one in drifts.findings if one.drifted] == ["unfamiliar"]


def test_queries_farther_from_the_training_queries_are_drift_of_no_expert() -> None:
    records, rewards = traffic()
    far = {one.request_id: 0.2 + 0.1 * (int(one.request_id) >= 1000) for one in records}
    near = dict.fromkeys(far, 0.2)

    assert [one.kind for one in drift(records, rewards, "p", far).findings if one.drifted] == ["distance"]
    assert not any(one.drifted for one in drift(records, rewards, "p", near).findings)


def test_distances_are_of_texts_and_of_logged_embeddings() -> None:
    data = dataset(60)
    policy = replace(train(data, embeddings(data.texts), ENCODER, method="knn"), policy_id="p")
    known, short = data.texts[0], ENCODER.sha256[:SHORT]
    stored = encoded(embeddings([known])[0])
    records = [
        DecisionRecord(request_id="text", policy="p", query=known),
        DecisionRecord(request_id="embedding", policy="p", embedding=stored, encoder=short),
        DecisionRecord(request_id="other encoder", policy="p", embedding=stored, encoder="another"),
        DecisionRecord(request_id="neither", policy="p"),
        DecisionRecord(request_id="other policy", policy="another", query=known),
    ]

    assert distances(records, policy, embed) == pytest.approx({"text": 0, "embedding": 0}, abs=1e-3)


def test_small_windows_find_nothing() -> None:
    assert drift(*traffic(LEAST), "p").findings == ()


def test_decisions_of_other_policies_do_not_count() -> None:
    assert drift(*traffic(100), "another") == Drift(0, 0, ())
