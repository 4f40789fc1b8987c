"""A new expert from a few probes: as good as retraining, and nothing else moves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.core import Preferences, QueryBatch, RouteRequest
from router.data.dataset import Dataset, to_dataset
from router.encoders import EncoderSpec
from router.errors import InputError, OutcomesError, PoolError
from router.evaluation.evaluate import judge, report
from router.policy import Policy
from router.training.add_expert import add_expert
from router.training.card import card
from router.training.probes import choose_probes
from router.training.train import train
from tests.router.data_sets import POOL, dataset, embeddings, rows

SPEC = EncoderSpec("test", "0" * 64, 16, 128)


@pytest.fixture(scope="module")
def policy() -> Policy:
    data = dataset(300).only(["sums", "large"])
    return train(data, embeddings(data.texts), SPEC, method="knn", seed=0)


@pytest.fixture(scope="module")
def probes() -> Dataset:
    return dataset(100, seed=5)


def grown(policy: Policy, probes: Dataset) -> Policy:
    return add_expert(policy, probes, embeddings(probes.texts), name="words")


def batch(data: Dataset) -> QueryBatch:
    return QueryBatch(data.texts, embeddings(data.texts))


def test_it_takes_the_last_column_and_leaves_the_others_as_they_were(policy: Policy, probes: Dataset) -> None:
    more, fresh = grown(policy, probes), batch(dataset(50, seed=8))

    assert more.pool.names == ("sums", "large", "words")
    assert more.policy_id == "unsaved"
    np.testing.assert_allclose(more.score(fresh).quality[:, :2], policy.score(fresh).quality)


def test_queries_of_its_kind_go_to_it_nearly_as_after_retraining(policy: Policy, probes: Dataset) -> None:
    more, fresh = grown(policy, probes), dataset(600, seed=8).only(["sums", "large", "words"])
    data = dataset(300).only(["sums", "large", "words"])
    again = train(data, embeddings(data.texts), SPEC, method="knn", seed=0)

    def reached(candidate: Policy) -> float:
        chosen = candidate.score(batch(fresh)).quality.argmax(axis=1)
        return float(fresh.quality[np.arange(600), chosen].mean())

    assert reached(more) > fresh.quality.mean(axis=0).max() + 0.1
    assert reached(more) > reached(again) - 0.02


def test_its_cost_and_mean_are_learnt_from_the_probes(policy: Policy, probes: Dataset) -> None:
    more, fresh = grown(policy, probes), dataset(20, seed=8)
    decisions = more.decide(
        batch(fresh), [RouteRequest(text, Preferences(cost_weight=0)) for text in fresh.texts]
    )
    view = decisions[0].experts  # type: ignore[union-attr]

    assert view["words"].cost_usd == pytest.approx(view["sums"].cost_usd, rel=0.3)
    assert more.guard.means[2] == pytest.approx(0.5, abs=0.1)
    assert more.training["added"][0]["n_probes"] == 100
    assert more.training["metrics"]["expert_means"].keys() == {"sums", "large", "words"}
    assert len(more.training["task_means"]["sums"]) == 3


def test_figures_against_the_old_best_expert_fall_where_the_new_one_is_better(
    policy: Policy, probes: Dataset
) -> None:
    better = replace(probes, measured={**probes.measured, "quality": np.ones_like(probes.quality)})
    more = add_expert(policy, better, embeddings(better.texts), name="words")
    data = dataset(200, seed=8).only(["sums", "large", "words"])

    assert more.training["best_single"] == "words"
    assert report(judge(more, data, embeddings(data.texts)))["cost_saved_at_equal_quality"]["saved"] is None
    assert "Best single expert on the training data: words" in card(more)
    assert "Out of fold" not in card(more)
    assert "out_of_fold" in policy.training["metrics"]


def test_figures_stay_where_the_best_expert_stays(policy: Policy, probes: Dataset) -> None:
    more = grown(policy, probes)

    assert more.training["best_single"] == "large"
    assert more.training["metrics"]["out_of_fold"] == policy.training["metrics"]["out_of_fold"]
    assert "Out of fold" in card(more)


def test_it_is_saved_and_loaded_and_takes_another_one_in(
    policy: Policy, probes: Dataset, tmp_path: Path
) -> None:
    saved = grown(policy, probes).save(tmp_path / "p", "# Card\n")
    loaded, fresh = Policy.load(tmp_path / "p"), batch(dataset(30, seed=8))
    fourth = to_dataset(
        [row | {"expert": "fourth"} for row in rows(60, seed=6) if row["expert"] == "large"],
    )
    twice = add_expert(loaded, fourth, embeddings(fourth.texts), name="fourth").save(
        tmp_path / "q", "# Card\n"
    )

    np.testing.assert_array_equal(loaded.score(fresh).quality, saved.score(fresh).quality)
    assert Policy.load(tmp_path / "q").pool.names == ("sums", "large", "words", "fourth")
    assert [entry["expert"] for entry in twice.training["added"]] == ["words", "fourth"]
    assert twice.score(fresh).quality.shape == (30, 4)


def test_the_others_outcomes_on_the_probes_correct_a_lucky_draw(policy: Policy) -> None:
    """Probes drawn from the easy ones only: their outcomes show that they were easy."""
    rng, errors = np.random.default_rng(0), {"alone": [], "beside": []}
    for draw in range(12):
        data = dataset(400, seed=20 + draw)
        easy = rng.choice(400, size=80, replace=False, p=_favouring(data.quality[:, 2]))
        asked = data.take(easy)
        twin = replace(asked, measured={**asked.measured, "quality": _twin(asked.quality)})
        for name, known in (("alone", twin.only(["words"])), ("beside", twin)):
            more = add_expert(policy, known, embeddings(known.texts), name="words")
            errors[name].append(abs(more.guard.means[2] - policy.guard.means[1]))

    assert np.mean(errors["beside"]) < np.mean(errors["alone"])


def _favouring(quality: np.ndarray) -> np.ndarray:
    weight = 1.0 + 2.0 * quality
    return weight / weight.sum()


def _twin(quality: np.ndarray) -> np.ndarray:
    """The new expert does just what the large one does."""
    changed = quality.copy()
    changed[:, POOL.column("words")] = quality[:, POOL.column("large")]
    return changed


def test_an_expert_that_cannot_be_added_is_rejected(policy: Policy, probes: Dataset) -> None:
    with pytest.raises(PoolError, match="'sums' is in the policy's pool already"):
        add_expert(policy, probes, embeddings(probes.texts), name="sums")
    with pytest.raises(PoolError, match="'nobody' is not in the candidate pool"):
        add_expert(policy, probes, embeddings(probes.texts), name="nobody")
    few = dataset(19)
    with pytest.raises(OutcomesError, match="at least 20 outcomes of it, found 19 of 'words'"):
        add_expert(policy, few, embeddings(few.texts), name="words")


def test_probes_are_spread_and_unique() -> None:
    data = dataset(300)
    chosen = choose_probes(embeddings(data.texts), count=40, seed=0)
    spelling = np.mean([data.texts[i].startswith("Spell") for i in chosen])

    assert len(chosen) == len(set(chosen)) == 40
    assert 0.3 < spelling < 0.7
    assert chosen == choose_probes(embeddings(data.texts), count=40, seed=0)


def test_probes_of_copies_still_have_their_count() -> None:
    same = np.tile(embeddings(("a",)), (30, 1))

    assert len(choose_probes(same, count=10, seed=0)) == 10
    assert choose_probes(same, count=99, seed=0) == list(range(30))
    with pytest.raises(InputError, match="found 0 of 30"):
        choose_probes(same, count=0, seed=0)
