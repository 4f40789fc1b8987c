"""From outcomes to a policy: the choices, and the errors."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router.core import Preferences, QueryBatch, RouteRequest
from router.data.dataset import Dataset, to_dataset
from router.decide import decide
from router.encoders import EncoderSpec
from router.errors import MethodError, OutcomesError
from router.guard import NoveltyGuard
from router.training.fitting import fold_of
from router.training.preference import COST_WEIGHTS, MOST_LOSS, choose_preference
from router.training.train import check_trainable, train
from tests.router.data_sets import POOL, dataset, embeddings, rows

SPEC = EncoderSpec("test", "0" * 64, 16, 128)


def trained(data: Dataset, **options: Any) -> Any:
    return train(data, embeddings(data.texts), SPEC, **{"method": "knn", **options})


def test_the_policy_records_its_provenance() -> None:
    data = dataset(240)
    policy = trained(data, seed=7)

    assert policy.training["data_sha256"] == data.sha256
    assert policy.training["seed"] == 7
    assert policy.training["n_queries"] == 240
    assert policy.training["best_single"] == policy.static_ranking[0] == "large"
    assert set(policy.training["metrics"]["expert_means"]) == set(POOL.names)
    assert set(policy.training["task_means"]) == {"sums", "words"}


def test_the_default_preference_gains_quality_and_saves_cost() -> None:
    figures = trained(dataset(400)).training["metrics"]["out_of_fold"]

    assert figures["default"]["gain"] >= figures["best_quality"]["gain"] - MOST_LOSS
    assert figures["default"]["saved"] >= figures["best_quality"]["saved"]
    assert figures["equal_quality"]["saved"] >= figures["default"]["saved"] > 0.5
    assert figures["equal_quality"]["margin"] >= 0


def test_where_no_weight_is_safe_quality_alone_counts() -> None:
    data = dataset(200)
    upside_down = 1 - data.quality  # scores that are wrong wherever they can be
    expected = np.tile([1.0, 1.0, 10.0], (200, 1))
    chosen = choose_preference(upside_down, expected, data, best=2)

    assert chosen.default.cost_weight == 0.0
    assert chosen.equal_quality is None  # the best single expert itself


def test_without_costs_quality_alone_counts() -> None:
    data = to_dataset([{**row, "completion_tokens": None} for row in rows(200)])
    policy = trained(data)

    assert policy.preferences.cost_weight == 0.0
    assert policy.training["equal_quality_cost_weight"] is None


@pytest.mark.parametrize("expert", ["large", "words"])
def test_a_query_of_unknown_cost_chooses_no_preference_and_spoils_none(expert: str) -> None:
    made = rows(300)
    for row in made:
        if row["expert"] == expert and int(row["query_id"][1:]) < 40:
            row["completion_tokens"] = None
    figures = trained(to_dataset(made, pool=POOL)).training["metrics"]["out_of_fold"]

    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["equal_quality"]["saved"] > 0.5


def test_an_expert_without_any_cost_leaves_quality_alone_to_count() -> None:
    made = [row | {"completion_tokens": None} if row["expert"] == "words" else row for row in rows(200)]
    policy = trained(to_dataset(made, pool=POOL))

    assert policy.preferences.cost_weight == 0.0
    assert policy.training["metrics"]["out_of_fold"]["default"]["saved"] == 0.0


def test_the_choice_holds_on_queries_that_it_never_saw() -> None:
    held = []
    for seed in range(8):
        policy = trained(dataset(300, seed=seed), seed=seed)
        fresh = dataset(600, seed=100 + seed)
        scores = policy.score(batch(fresh)).quality
        expected = policy.expected_costs(batch(fresh), [RouteRequest(text) for text in fresh.texts])
        picked = decide(scores, expected, preferences=Preferences(
            cost_weight=policy.training["equal_quality_cost_weight"]
        )).best  # fmt: skip
        gain = fresh.quality[np.arange(600), picked] - fresh.quality[:, 2]
        held.append(gain.mean())

    assert np.mean(held) >= 0
    assert sum(gain >= -0.02 for gain in held) >= 7


def test_the_default_preference_holds_on_queries_that_it_never_saw() -> None:
    """It once saved cost at up to five points under the best single expert."""
    for seed in range(4):
        policy = trained(dataset(300, seed=seed), seed=seed)
        fresh = dataset(600, seed=200 + seed)
        scores = policy.score(batch(fresh)).quality
        expected = policy.expected_costs(batch(fresh), [RouteRequest(text) for text in fresh.texts])
        gains = {}
        for weight in (0.0, policy.preferences.cost_weight):
            picked = decide(scores, expected, preferences=Preferences(cost_weight=weight)).best
            gains[weight] = (fresh.quality[np.arange(600), picked] - fresh.quality[:, 2]).mean()

        assert gains[policy.preferences.cost_weight] > 0
        assert gains[policy.preferences.cost_weight] >= gains[0.0] - 0.02


def batch(data: Dataset) -> QueryBatch:
    return QueryBatch(data.texts, embeddings(data.texts))


def test_missing_outcomes_are_borne() -> None:
    rng = np.random.default_rng(0)
    kept = [row for row in rows(300) if rng.random() < 0.7]
    policy = trained(to_dataset(kept, pool=POOL))

    assert policy.pool.names == POOL.names


@pytest.mark.parametrize("n", [1, 19])
def test_too_few_queries_are_rejected(n: int) -> None:
    with pytest.raises(OutcomesError, match=f"at least 20 different queries, found {n}"):
        trained(dataset(n))


def test_copies_of_a_query_count_once() -> None:
    data = dataset(30)
    copies = tuple(f" {data.texts[number % 15].upper()}" for number in range(30))
    with pytest.raises(OutcomesError, match="found 15 in 30: queries that differ only in space"):
        check_trainable(replace(data, texts=copies), method="knn")


def test_an_expert_with_too_few_queries_is_named() -> None:
    few = [row for row in rows(60) if row["expert"] != "words" or int(row["query_id"][1:]) < 4]
    with pytest.raises(OutcomesError, match="of expert 'words' on at least 5 different queries, found 4"):
        check_trainable(to_dataset(few, pool=POOL), method="knn")


def test_one_expert_alone_is_rejected_except_for_fixed() -> None:
    alone = dataset(60).only(["words"])
    with pytest.raises(OutcomesError, match="at least two experts, the outcomes hold only 'words'"):
        trained(alone)

    assert trained(alone, method="fixed").static_ranking == ("words",)


def test_an_unknown_method_or_parameter_is_rejected_early() -> None:
    with pytest.raises(MethodError, match="'oracle-of-delphi' is unknown"):
        trained(dataset(60), method="oracle-of-delphi")
    with pytest.raises(MethodError, match="takes k, sharpness, strength, found 'neighbours'"):
        trained(dataset(60), params={"neighbours": 3})


def test_identical_queries_share_their_fold() -> None:
    texts = tuple(f"Query {number % 50}" if number % 2 else f"query  {number % 50}" for number in range(200))
    folds = fold_of(texts, seed=0)

    for text in {t.casefold().replace("  ", " ") for t in texts}:
        assert (
            len({int(f) for f, t in zip(folds, texts, strict=True) if t.casefold().split() == text.split()})
            == 1
        )
    assert set(folds.tolist()) == {0, 1, 2, 3, 4}


def test_weights_begin_with_best_quality_and_rise() -> None:
    assert COST_WEIGHTS[0] == 0.0
    assert list(COST_WEIGHTS) == sorted(COST_WEIGHTS)


def test_the_guard_knows_near_from_far_and_what_is_not_a_number() -> None:
    near = embeddings(dataset(200).texts)
    guard = NoveltyGuard.fit(near, np.array([0.5]), seed=0)
    far = np.eye(16, dtype=np.float32)[:3] - near[0] * (near[0][:3, None])
    far /= np.linalg.norm(far, axis=1, keepdims=True)

    assert guard.unfamiliar(near).mean() < 0.02
    assert guard.unfamiliar(-near[:5]).all()
    assert guard.unfamiliar(np.full((1, 16), np.nan, dtype=np.float32)).all()
    np.testing.assert_array_equal(NoveltyGuard.restore(guard.arrays()).unfamiliar(far), guard.unfamiliar(far))


def test_a_paraphrase_of_templates_is_not_far() -> None:
    rng = np.random.default_rng(0)
    centre = np.eye(16)[0]
    template = centre + 0.02 * rng.normal(size=(200, 16))
    paraphrase = centre + np.eye(16)[1]
    near = [
        (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
        for rows in (template, paraphrase)
    ]
    guard = NoveltyGuard.fit(near[0], np.array([0.5]), seed=0)

    assert not guard.unfamiliar(near[1][None])[0]
