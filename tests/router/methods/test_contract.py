"""What every routing method promises; a user's own passes the same tests."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.core import QueryBatch, TrainingSet
from router.errors import MethodError, OutcomesError, WeightsError
from router.methods.contract import RoutingMethod
from router.methods.ensemble import AutoRouter
from router.methods.registry import BUILT_IN, make, method_class
from tests.router.data_sets import embeddings, tiny_encoder, training

METHODS = sorted(BUILT_IN)
TEXTS = ("What is 1 plus 1?", "Spell the word cab backwards", "日本語の質問 🙂", "x" * 100_000, "")
QUERIES = QueryBatch(TEXTS, embeddings(TEXTS))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Parameters where the default would be slow: an encoder of 30 thousand weights, not 22 million."""
    folder: Path = tiny_encoder(tmp_path_factory.mktemp("encoder"))
    return {"bert": {"encoder": str(folder), "rate": 2e-3, "epochs": 6, "max_tokens": 32}}


@pytest.fixture(scope="module", params=METHODS)
def fitted(request: pytest.FixtureRequest, given: dict[str, dict[str, Any]]) -> RoutingMethod:
    return make(request.param, given.get(request.param)).fit(training(), seed=0)


def test_scores_are_finite_and_within_zero_and_one(fitted: RoutingMethod) -> None:
    scores = fitted.score(QUERIES)

    assert scores.shape == (len(TEXTS), 3)
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()


def test_a_batch_is_its_rows(fitted: RoutingMethod) -> None:
    whole = fitted.score(QUERIES)
    rows = [fitted.score(QUERIES.take(np.array([row]))) for row in range(len(TEXTS))]

    np.testing.assert_allclose(whole, np.concatenate(rows), atol=1e-5)


def test_arrays_and_params_restore_it(fitted: RoutingMethod) -> None:
    restored = method_class(fitted.name).restore(fitted.params, fitted.arrays())

    np.testing.assert_allclose(restored.score(QUERIES), fitted.score(QUERIES), atol=1e-6)
    assert restored.params == fitted.params


def test_fitting_twice_is_fitting_once(fitted: RoutingMethod) -> None:
    again = make(fitted.name, fitted.params).fit(training(), seed=0).fit(training(), seed=0)

    np.testing.assert_allclose(again.score(QUERIES), fitted.score(QUERIES), atol=1e-5)


def test_other_arrays_are_rejected(fitted: RoutingMethod) -> None:
    with pytest.raises(WeightsError):
        method_class(fitted.name).restore(fitted.params, {"stranger": np.zeros(1)})


@pytest.mark.parametrize("name", METHODS)
def test_the_constructor_does_nothing_but_store(name: str) -> None:
    made = make(name)

    assert set(vars(made)) <= set(made.params) | set(vars(make(name)))
    assert not [attribute for attribute in vars(made) if attribute.endswith("_")]


@pytest.mark.parametrize("name", METHODS)
def test_missing_outcomes_are_borne(name: str, given: dict[str, dict[str, Any]]) -> None:
    whole = training()
    quality = whole.quality.copy()
    quality[np.random.default_rng(0).random(quality.shape) < 0.3] = np.nan
    holed = TrainingSet(whole.queries, quality, whole.costs_usd, whole.tasks)

    assert np.isfinite(make(name, given.get(name)).fit(holed, seed=0).score(QUERIES)).all()


@pytest.mark.parametrize("name", [name for name in METHODS if name != "random"])
def test_an_expert_without_any_outcome_is_rejected(name: str, given: dict[str, dict[str, Any]]) -> None:
    whole = training(60)
    quality = whole.quality.copy()
    quality[:, 1] = np.nan

    with pytest.raises(OutcomesError):
        make(name, given.get(name)).fit(TrainingSet(whole.queries, quality, None, whole.tasks), seed=0)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in {"fixed", "random"}])
def test_it_finds_the_signal(name: str, given: dict[str, dict[str, Any]]) -> None:
    scores = make(name, given.get(name)).fit(training(), seed=0).score(QUERIES)

    assert scores[0].argmax() == 0
    assert scores[1].argmax() == 1


@pytest.mark.parametrize(("name", "params"), [("knn", {"neighbours": 3}), ("nobodys", {}), ("knn", {"k": 0})])
def test_bad_names_and_parameters_are_rejected(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(MethodError):
        make(name, params).fit(training(40), seed=0)


@pytest.mark.parametrize("head", ["probability", "soft_label"])
@pytest.mark.parametrize("name", ["mlp", "matrix_factorization", "bert"])
def test_both_heads_find_the_signal(name: str, head: str, given: dict[str, dict[str, Any]]) -> None:
    scores = make(name, {**given.get(name, {}), "head": head}).fit(training(), seed=0).score(QUERIES)

    assert scores[0].argmax() == 0
    assert scores[1].argmax() == 1


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("mlp", {"head": "logits"}),
        ("mlp", {"temperature": 0.0}),
        ("mlp", {"hidden": 0}),
        ("matrix_factorization", {"rank": 0}),
        ("matrix_factorization", {"epochs": 0}),
        ("elo", {"k": 0}),
        ("bert", {"epochs": 0}),
    ],
)
def test_parameters_out_of_range_are_rejected(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(MethodError):
        make(name, params).fit(training(40), seed=0)


def test_a_saved_blend_outlives_a_change_of_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = make("auto").fit(training(), seed=0)
    params, arrays, scores = fitted.params, fitted.arrays(), fitted.score(QUERIES)
    monkeypatch.setattr(AutoRouter, "DEFAULT", ("linear",))

    restored = method_class("auto").restore(params, arrays)

    np.testing.assert_allclose(restored.score(QUERIES), scores, atol=1e-6)
    assert restored.params == params


def test_a_blend_that_was_saved_before_members_were_named_is_still_read() -> None:
    members = list(AutoRouter.UNNAMED)
    fitted = make("ensemble", {"members": members}).fit(training(), seed=0)

    restored = method_class("auto").restore({}, fitted.arrays())

    np.testing.assert_allclose(restored.score(QUERIES), fitted.score(QUERIES), atol=1e-6)
    assert restored.params == {"members": members}
