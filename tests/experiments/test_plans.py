"""The experiment on plans: intervals over queries, and calibration against a perfect model."""

import numpy as np
import pytest

from experiments import plans


def part(seed: int, gain: float) -> dict[str, np.ndarray]:
    """One split of a hundred queries on which every arm is better than the best expert by a constant."""
    rows = np.random.default_rng(seed).permutation(200)[:100].astype(float)
    found = {"rows": rows, "plans": np.array([2.0]), "weight": np.array([0.1])}
    found |= {"best_quality": np.full(100, 0.5), "best_cost": np.full(100, 2.0)}
    for arm in ("prompt", "plans", "joined", "fixed", "oracle"):
        more = gain if arm == "joined" else 0.0
        for point in ("top", "equal"):
            found[f"{arm}_{point}_quality"] = np.full(100, 0.5 + more)
            found[f"{arm}_{point}_cost"] = np.full(100, 1.0)
        found[f"{arm}_curve_quality"] = np.full((100, 2), 0.5 + more)
        found[f"{arm}_curve_cost"] = np.tile([2.0, 0.5], (100, 1))
    rng = np.random.default_rng(seed)
    p = rng.random(100)
    right = (rng.random(100) < p).astype(float)
    return found | {"p_right": p, "right": right, "accepted": (p > 0.5) * 1.0, "picked": (p > 0.3) * 1.0}


def test_the_table_shows_gain_saving_and_hindsight() -> None:
    lines = plans.table([part(0, 0.02), part(1, 0.02)]).splitlines()

    assert "| joined | +2.00 (+2.00 to +2.00) | 0.50 × | 50.0% (50.0% to 50.0%) | +2.00 " in lines[4]
    assert "Joined over prompt only at cost_weight 0: +2.00 (+2.00 to +2.00) points." in lines
    assert lines[4].endswith("| 75.0% |")


def test_calibration_is_compared_with_a_perfect_models() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(5000)
    right = (rng.random(5000) < p).astype(float)

    assert plans.calibration_error(p, right) == pytest.approx(plans.perfect_error(p), abs=0.01)
    assert plans.calibration_error(p, np.ones(5000)) > 0.4
    assert "| picked by the policy |" in plans.acceptance([part(0, 0.0)])


def test_without_plans_there_is_no_acceptance() -> None:
    empty = {key: np.zeros(0) for key in ("p_right", "right", "accepted", "picked")}

    assert plans.acceptance([empty]).startswith("No plan was kept")
