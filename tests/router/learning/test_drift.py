"""Drift: the expert that changed is named, and no other."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from router.cli import main
from router.core import FloatArray
from router.encoders import EncoderSpec
from router.learning.drift import LEAST, MOST_TEXTS, Drift, distances, drift
from router.learning.record import DecisionRecord, to_json
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


def test_few_of_many_texts_are_encoded_and_none_that_has_an_embedding() -> None:
    data = dataset(60)
    policy = replace(train(data, embeddings(data.texts), ENCODER, method="knn"), policy_id="p")
    stored = {"embedding": encoded(embeddings([data.texts[0]])[0]), "encoder": ENCODER.sha256[:SHORT]}
    with_text = [
        DecisionRecord(request_id=f"{n}", policy="p", query=f"What is {n} plus 1?") for n in range(9000)
    ]
    both = [replace(one, request_id=f"b{one.request_id}", **stored) for one in with_text[:10]]
    called: list[str] = []

    def noting(spec: EncoderSpec, texts: Sequence[str]) -> FloatArray:
        called.extend(texts)
        return embed(spec, texts)

    found = distances([*with_text, *both], policy, noting)

    assert len(called) == MOST_TEXTS
    assert called[0] == "What is 0 plus 1?"
    assert "What is 4500 plus 1?" in called
    assert found.keys() >= {one.request_id for one in both}
    assert len(found) == MOST_TEXTS + 10


def test_without_the_encoder_the_command_finds_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = dataset(60)
    made = train(data, embeddings(data.texts), ENCODER, method="fixed")
    policy = made.save(tmp_path / "policy", "a card")
    records = [replace(one, policy=policy.policy_id, query="Why?") for one in traffic(factor=1.5)[0]]
    lines = [json.dumps(to_json(one, with_texts=True), default=dict) for one in records]
    (tmp_path / "decisions-1.jsonl").write_text("\n".join(lines) + "\n")

    code = main(["drift", "--log", str(tmp_path), "--policy", str(tmp_path / "policy")])

    shown = capsys.readouterr()
    assert code == 0
    assert "drifted: small" in shown.out
    assert "without distances to the training queries: " in shown.err


def test_small_windows_find_nothing() -> None:
    assert drift(*traffic(LEAST), "p").findings == ()


def test_decisions_of_other_policies_do_not_count() -> None:
    assert drift(*traffic(100), "another") == Drift(0, 0, ())
