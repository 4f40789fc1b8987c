"""The acceptance model learns calibrated probabilities and is restored exactly."""

import subprocess
import sys

import numpy as np
import pytest

from router.errors import WeightsError
from router.plans.acceptance import AcceptanceModel
from router.plans.signals import Signals


def made(n: int, seed: int) -> tuple[list[Signals], np.ndarray]:
    """Answers of which agreeing ones are right in 90 % of all cases, the others in 30 %."""
    rng = np.random.default_rng(seed)
    agree = rng.random(n) < 0.5
    signals = [Signals(score=0.6, agreement=float(a), characters=int(rng.integers(5, 900))) for a in agree]
    return signals, (rng.random(n) < np.where(agree, 0.9, 0.3)).astype(float)


def test_its_probabilities_are_calibrated_on_new_answers() -> None:
    signals, quality = made(2000, 0)

    model = AcceptanceModel.fit(signals, quality)

    assert model.p_right(Signals(score=0.6, agreement=1.0, characters=300)) == pytest.approx(0.9, abs=0.04)
    assert model.p_right(Signals(score=0.6, agreement=0.0, characters=300)) == pytest.approx(0.3, abs=0.06)


def test_it_needs_only_the_signals_it_learnt_from() -> None:
    signals, quality = made(300, 1)

    model = AcceptanceModel.fit(signals, quality)

    assert model.needs == {"agreement", "characters"}  # all scores were the same
    assert not model.needs_logprobs
    assert AcceptanceModel.fit([Signals(mean_logprob=-q) for q in quality], quality).needs_logprobs


def test_an_unknown_signal_counts_as_an_average_one() -> None:
    signals, quality = made(2000, 0)

    model = AcceptanceModel.fit(signals, quality)

    assert 0.3 < model.p_right(Signals()) < 0.9


def test_a_restored_model_gives_the_same_probability() -> None:
    signals, quality = made(300, 2)
    model = AcceptanceModel.fit(signals, quality)

    restored = AcceptanceModel.restore(model.arrays())

    assert [restored.p_right(one) for one in signals] == [model.p_right(one) for one in signals]
    with pytest.raises(WeightsError, match="acceptance model"):
        AcceptanceModel.restore({"weights": np.zeros((3, 2)), "intercept": np.zeros(1)})


def test_only_right_answers_do_not_break_the_fit() -> None:
    signals, _ = made(50, 3)

    assert AcceptanceModel.fit(signals, np.ones(50)).p_right(signals[0]) > 0.9


def test_importing_it_is_cheap_for_the_ingress() -> None:
    heavy = ("pyarrow", "safetensors", "tokenizers", "sklearn", "scipy", "httpx")
    code = f"import sys, router.plans.acceptance; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
