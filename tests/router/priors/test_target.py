"""Priors as the target of training."""

import numpy as np
import pytest

from router.errors import InputError
from router.methods.registry import method_class
from router.methods.shrunk import ShrunkRouter
from router.policy import Policy
from router.priors.abilities import ability_prior
from router.priors.start import StartExpert, experts_of
from router.priors.target import target
from router.priors.update import Belief
from router.training.fitting import fold_of
from router.training.train import train_experts
from tests.router.data_sets import POOL, dataset
from tests.router.priors.test_start import FakeEncoder, made

MODELS = {"sums": "Qwen/Qwen2.5-Math-7B-Instruct", "words": "google/gemma-2-9b-it", "large": "Qwen/Qwen3-32B"}


@pytest.fixture(scope="module")
def prior() -> Policy:
    return made(FakeEncoder(), [StartExpert(POOL[name], model) for name, model in MODELS.items()])


def belief(policy: Policy) -> Belief:
    return Belief.of(ability_prior().of([expert.facts for expert in experts_of(policy)]))


def test_training_shrinks_to_the_prior(prior: Policy) -> None:
    data, encoder = dataset(60), FakeEncoder()
    points = encoder.encode(data.texts)
    aim = target(prior, belief(prior), data, points, fold_of(data.texts, seed=0))

    policy, *_ = train_experts(data, points, encoder.spec, method="knn", target=aim)
    method = policy.method

    assert isinstance(method, ShrunkRouter)
    assert 0 <= policy.training["weight_of_prior"] <= 1
    restored = method_class("shrunk").restore(method.params, method.arrays())
    assert restored.params == {
        "base": {"name": "knn", "params": method.fitted_.params},
        "kinds": method.kinds,
    }


def test_the_target_has_the_columns_of_the_outcomes(prior: Policy) -> None:
    data = dataset(60)
    turned = data.only(["large", "sums", "words"])
    points = FakeEncoder().encode(data.texts)
    folds = fold_of(data.texts, seed=0)

    straight = target(prior, belief(prior), data, points, folds).apart
    other = target(prior, belief(prior), turned, points, folds).apart

    np.testing.assert_allclose(other, straight[:, [data.pool.column(name) for name in turned.pool.names]])


def test_other_experts_are_an_error(prior: Policy) -> None:
    data = dataset(60).only(["sums", "words"])

    with pytest.raises(InputError, match="large"):
        target(prior, belief(prior), data, FakeEncoder().encode(data.texts), np.zeros(60, dtype=int))
