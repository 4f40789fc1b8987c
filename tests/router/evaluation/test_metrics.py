"""Figures of routing, held against cases that can be worked out by hand."""

import numpy as np
import pytest

from router.evaluation import metrics


def test_two_experts_gap_is_recovered_as_routellm_counts_it() -> None:
    weak, strong = np.array([0.0, 0.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.0, 1.0])
    share, recovered = metrics.gap_recovered(np.array([0.9, 0.8, 0.2, 0.1]), weak, strong)

    assert recovered.tolist() == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert metrics.apgr(share, recovered) == pytest.approx(0.75)
    assert metrics.call_share(share, recovered, 0.5) == 0.25
    assert metrics.call_share(share, recovered, 0.8) == 0.5
    assert metrics.call_share(share, recovered, 1.5) is None


def test_equal_leads_recover_half_in_any_order() -> None:
    weak, strong = np.zeros(4), np.array([1.0, 1.0, 0.0, 0.0])
    share, recovered = metrics.gap_recovered(np.full(4, 0.3), weak, strong)

    assert recovered.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert metrics.apgr(share, recovered) == pytest.approx(0.5)


def test_random_leads_recover_half() -> None:
    rng = np.random.default_rng(0)
    strong, weak = rng.random(20_000) < 0.9, rng.random(20_000) < 0.6
    share, recovered = metrics.gap_recovered(rng.random(20_000), weak.astype(float), strong.astype(float))

    assert metrics.apgr(share, recovered) == pytest.approx(0.5, abs=0.02)


def test_perfect_predictions_have_no_calibration_error_and_sure_wrong_ones_all_of_it() -> None:
    quality = np.array([0.0, 1.0, 1.0, 0.0])

    assert metrics.calibration_error(quality, quality) == 0.0
    assert metrics.calibration_error(1 - quality, quality) == 1.0
    assert metrics.calibration_error(np.full(4, 0.5), quality) == 0.0


def test_reliability_counts_every_query_once() -> None:
    rng = np.random.default_rng(0)
    bins = metrics.reliability(rng.random(500), rng.random(500))

    assert sum(count for _, _, count in bins) == 500
    assert all(0.1 * i <= score <= 0.1 * (i + 1) for i, (score, _, _) in enumerate(bins))


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(60):
        sample = rng.normal(0, 1, 100)
        low, high = metrics.interval(lambda w, sample=sample: w @ sample, 100)
        held += low <= 0 <= high

    assert held >= 52


def test_an_interval_repeats_for_a_seed() -> None:
    sample = np.arange(50.0)

    assert metrics.interval(lambda w: w @ sample, 50) == metrics.interval(lambda w: w @ sample, 50)
    assert metrics.interval(lambda w: w @ sample, 50, seed=1) != metrics.interval(lambda w: w @ sample, 50)
