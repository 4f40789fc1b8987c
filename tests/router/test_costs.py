"""Cost is an expectation over answers, at the prices in effect."""

import numpy as np
import pytest
from pydantic import ValidationError

from router.costs import ASSUMED_COMPLETION_TOKENS, CostFacts, CostModel, estimated_prompt_tokens
from router.errors import WeightsError
from router.experts import CandidatePool, ExpertProfile, Price
from tests.router.data_sets import POOL, dataset, embeddings

DATA = dataset(300)
X = embeddings(DATA.texts)
ASKED = DATA.texts[:5]


def fitted(pool: CandidatePool = POOL, **measured: object) -> CostModel:
    given = {"prompt_tokens": None, "completion_tokens": None, "costs_usd": None} | measured
    return CostModel.fit(pool, DATA.texts, X, **given)  # type: ignore[arg-type]


def tokens(short: float = 10.0, long: float = 1000.0) -> np.ndarray:
    """Answers to spelling are long, those to sums short, for every expert alike."""
    amount = np.where([text.startswith("Spell") for text in DATA.texts], long, short)
    return np.tile(amount[:, None], (1, 3))


def test_long_answers_are_expected_where_they_were_long() -> None:
    model = fitted(completion_tokens=tokens())
    costs = model.predict(X, DATA.texts)
    spelling = np.array([text.startswith("Spell") for text in DATA.texts])

    assert costs is not None
    assert costs.shape == (300, 3)
    assert costs[spelling].mean() > 5 * costs[~spelling].mean()
    np.testing.assert_allclose(costs[:, 2] / costs[:, 0], 10, rtol=0.05)


def test_the_mean_expectation_is_the_mean_measured() -> None:
    rng = np.random.default_rng(0)
    measured = rng.lognormal(4, 1, size=(300, 3))
    costs = fitted(completion_tokens=measured).predict(X, DATA.texts)
    prompt = np.array([estimated_prompt_tokens(text) for text in DATA.texts])
    paid = (prompt[:, None] * [0.05, 0.05, 0.5] + measured * [0.1, 0.1, 1.0]) / 1e6

    assert costs is not None
    np.testing.assert_allclose(costs.mean(axis=0), paid.mean(axis=0), rtol=0.05)


def test_a_bound_on_the_answer_bounds_its_cost() -> None:
    model = fitted(completion_tokens=tokens(1000, 1000))
    free = model.predict(X[:1], ASKED[:1])
    bound = model.predict(X[:1], ASKED[:1], prompt_tokens=[100], max_tokens=[5])

    assert free is not None
    assert bound is not None
    np.testing.assert_allclose(bound[0], np.array([0.05, 0.05, 0.5]) * 1e-4 + np.array([0.1, 0.1, 1]) * 5e-6)
    assert (bound < free).all()


def test_each_experts_tokenizer_has_its_factor() -> None:
    prompt = np.array([[estimated_prompt_tokens(text)] * 3 for text in DATA.texts]) * np.array(
        [1.0, 2.0, 3.0]
    )
    model = fitted(prompt_tokens=prompt, completion_tokens=tokens())

    assert model.prompt_factor is not None
    np.testing.assert_allclose(model.prompt_factor, [1, 2, 3])


def test_costs_without_tokens_are_learnt_as_costs() -> None:
    pool = CandidatePool.of("sums", "words", "large")
    paid = tokens() * np.array([1e-6, 2e-6, 3e-6])
    costs = fitted(pool, costs_usd=paid).predict(X, DATA.texts)

    assert costs is not None
    np.testing.assert_allclose(costs.mean(axis=0), paid.mean(axis=0), rtol=0.1)


def test_prices_alone_still_weigh_against_each_other() -> None:
    costs = fitted().predict(X[:1], ASKED[:1], prompt_tokens=[0])

    assert costs is not None
    assert costs[0, 2] / costs[0, 0] == pytest.approx(10)
    assert costs[0, 0] > ASSUMED_COMPLETION_TOKENS * 0.1 / 1e6


def test_with_nothing_known_there_is_no_cost() -> None:
    assert fitted(CandidatePool.of("sums", "words", "large")).predict(X[:1], ASKED[:1]) is None


def test_an_expert_without_a_price_has_an_unknown_cost_and_one_without_tokens_the_others() -> None:
    pool = CandidatePool([ExpertProfile("sums"), POOL["words"], POOL["large"]])
    measured = tokens()
    measured[:, 2] = np.nan
    costs = fitted(pool, completion_tokens=measured).predict(X[:3], ASKED[:3])

    assert costs is not None
    assert np.isnan(costs[:, 0]).all()
    np.testing.assert_allclose(costs[:, 2] / costs[:, 1], 10)


def test_other_prices_change_costs() -> None:
    model = fitted(completion_tokens=tokens())
    before, after = (
        m.predict(X[:1], ASKED[:1]) for m in (model, model.with_prices(POOL, {"words": Price(5, 10)}))
    )

    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after[0] / before[0], [1, 100, 1])


def test_an_expert_more_answers_at_length_where_the_others_do() -> None:
    model = fitted(completion_tokens=tokens())
    grown = model.with_expert(
        Price(1, 1), DATA.texts[:60], X[:60],
        prompt_tokens=None, completion_tokens=3 * tokens()[:60, 0], cost_usd=None,
    )  # fmt: skip
    found = grown.tokens.predict(X[60:]) if grown.tokens is not None else np.empty(0)

    assert found.shape == (240, 4)
    assert np.corrcoef(found[:, 3], found[:, 0])[0, 1] > 0.9
    assert found[:, 3].mean() == pytest.approx(3 * found[:, 0].mean(), rel=0.25)


def test_a_model_comes_back_from_its_facts_and_arrays() -> None:
    model = fitted(completion_tokens=tokens(), prompt_tokens=tokens(), costs_usd=None)
    back = CostModel.restore(model.facts(), model.arrays())

    np.testing.assert_array_equal(back.predict(X, DATA.texts), model.predict(X, DATA.texts))


def test_a_model_that_does_not_fit_is_rejected() -> None:
    model = fitted(completion_tokens=tokens())
    for facts in (
        {"parts": ["magic"], "prices_per_mtok": [[1, 1]]},
        {"parts": [], "prices_per_mtok": [[1, -1]]},
        {"parts": [], "prices_per_mtok": [[1]]},
    ):
        with pytest.raises(ValidationError):
            CostFacts.model_validate(facts)
    for part in ("tokens", "prompt_factor"):
        with pytest.raises(WeightsError):
            CostModel.restore(CostFacts(parts=[part], prices_per_mtok=[(1.0, 1.0)]), {})
    assert CostModel.restore(model.facts(), model.arrays()).tokens is not None
