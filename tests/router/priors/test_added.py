"""A new expert's expected mean quality beside experts that are known."""

import numpy as np

from router.experts import ExpertProfile
from router.priors.abilities import ability_prior
from router.priors.added import expected_mean
from router.priors.start import StartExpert


def expert(model: str) -> StartExpert:
    return StartExpert(ExpertProfile(model), model)


OTHERS = [expert("Qwen/Qwen2.5-7B-Instruct"), expert("meta-llama/Llama-3.1-70B-Instruct")]


def expected(model: str, *means: float) -> tuple[float, float]:
    return expected_mean(ability_prior(), OTHERS, np.array(means), expert(model))


def test_a_large_model_is_expected_above_a_small_one() -> None:
    assert expected("Qwen/Qwen3-32B", 0.4, 0.6)[0] > expected("meta-llama/Llama-3.2-1B-Instruct", 0.4, 0.6)[0]


def test_difficult_queries_are_expected_to_be_difficult_for_it_too() -> None:
    assert expected("google/gemma-2-27b-it", 0.2, 0.3)[0] < expected("google/gemma-2-27b-it", 0.7, 0.8)[0]


def test_an_unknown_model_has_a_wide_interval() -> None:
    assert expected("acme/frobnicator", 0.4, 0.6)[1] > expected("google/gemma-2-27b-it", 0.4, 0.6)[1]
