"""A canary's arms: the units of each, and when the values of one are worse."""

import numpy as np
import pytest

from router.learning.canary import ALPHA, ArmSums, arm_name, canary_id, standing
from router.learning.sequential import Sums


def arm(*, quality: float = 0.5, success: float = 1.0, n: int = 400, cost_usd: float = 0.01) -> ArmSums:
    costs = Sums(n, n * cost_usd, n * cost_usd**2)
    return ArmSums(Sums(n, n * quality, n * quality), Sums(n, n * success, n * success), costs)


def test_the_share_of_units_is_in_the_canary_and_each_unit_stays() -> None:
    units = [f"conversation {number}" for number in range(4000)]
    arms = [arm_name("a", unit, 0.1) for unit in units]

    assert arms == [arm_name("a", unit, 0.1) for unit in units]
    assert abs(arms.count("canary") / 4000 - 0.1) < 4 * np.sqrt(0.09 / 4000)


def test_another_canary_has_other_units() -> None:
    units = [f"conversation {number}" for number in range(1000)]
    both = sum(arm_name("a", unit, 0.5) == arm_name("b", unit, 0.5) for unit in units)

    assert 400 < both < 600


def test_an_id_changes_with_each_policy_the_share_and_the_end() -> None:
    ids = {
        canary_id("p", "q", 0.1, ""),
        canary_id("x", "q", 0.1, ""),
        canary_id("p", "x", 0.1, ""),
        canary_id("p", "q", 0.2, ""),
        canary_id("p", "q", 0.1, "2027-01-31"),
    }

    assert len(ids) == 5


@pytest.mark.parametrize(
    ("canary", "verdict"),
    [
        (arm(), "undecided"),
        (arm(quality=0.2), "worse"),
        (arm(success=0.7), "worse"),
        (arm(quality=0.9, success=0.7), "worse"),
        (arm(quality=0.9), "better"),
        (arm(quality=0.2, n=20), "undecided"),
        (arm(cost_usd=0.05), "undecided"),
    ],
)
def test_quality_and_success_decide_and_cost_does_not(canary: ArmSums, verdict: str) -> None:
    assert standing(canary, arm()).verdict == verdict


def test_a_lower_cost_is_called_better() -> None:
    assert standing(arm(cost_usd=0.001), arm()).cost_usd.verdict == "better"
    assert standing(arm(cost_usd=0.05), arm()).cost_usd.verdict == "worse"
    assert standing(ArmSums(), arm()).cost_usd.verdict == "undecided"


def test_a_rollback_is_explained_with_its_figures() -> None:
    text = standing(arm(quality=0.2), arm()).sentence

    assert text.startswith("quality -30.0 points (")
    assert "after 400 values of the canary and 400 of the policy in effect" in text


def test_sums_survive_json_and_damage_is_an_error() -> None:
    sums = arm(quality=0.3).plus("latency_s", 0.25)

    assert ArmSums.from_json(sums.as_json()) == sums
    for broken in ({}, {**sums.as_json(), "quality": [1]}, {**sums.as_json(), "quality": None}):
        with pytest.raises(ValueError, match=r"damaged|unpack"):
            ArmSums.from_json(broken)


def test_what_ends_an_equal_canary_has_five_percent_together() -> None:
    assert ALPHA["quality"] + ALPHA["success"] == pytest.approx(0.05)
