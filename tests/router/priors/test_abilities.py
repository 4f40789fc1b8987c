"""Abilities from the catalogue and from facts."""

import numpy as np
import pytest

from router.priors.abilities import Abilities, AbilityPrior, ability_prior
from router.priors.catalogue import KINDS
from router.priors.facts import facts_of


@pytest.fixture(scope="module")
def prior() -> AbilityPrior:
    return ability_prior()


def of(prior: AbilityPrior, *names: str) -> Abilities:
    return prior.of([facts_of(name) for name in names])


def test_larger_models_of_a_family_are_expected_to_be_better(prior: AbilityPrior) -> None:
    found = of(prior, "Qwen2.5-72B-Instruct", "Qwen2.5-7B-Instruct", "Qwen2.5-0.5B-Instruct").quality

    assert (np.diff(found.mean(axis=1)) < 0).all()


def test_code_models_are_expected_to_be_better_at_code(prior: AbilityPrior) -> None:
    coder, plain = of(prior, "Qwen2.5-Coder-7B-Instruct", "Qwen2.5-7B-Instruct").quality

    code = KINDS.index("code")
    assert coder[code] - plain[code] > (coder - plain)[KINDS.index("knowledge")]


def test_less_is_known_of_a_model_by_its_facts_alone(prior: AbilityPrior) -> None:
    listed = facts_of("meta-llama/Llama-3.1-8B-Instruct")
    unknown = facts_of("acme/frobnicator-9000")
    deviation = prior.of([listed, listed.nameless(), unknown]).deviation.mean(axis=1)

    assert (np.diff(deviation) > 0).all()


def test_intervals_hold_the_expected_quality(prior: AbilityPrior) -> None:
    found = of(prior, "gpt-4o-2024-08-06", "acme/frobnicator-9000")
    low, high = found.interval()

    assert ((low < found.quality) & (found.quality < high)).all()
    assert (high - low)[1].mean() > (high - low)[0].mean()
