"""Always-valid comparison: few false alarms however often it is looked at, and enough power."""

import math

import numpy as np
import pytest

from router.errors import InputError
from router.learning.sequential import LEAST_VALUES, Comparison, Sums, compare


def canary_run(seed: int, *, canary: float, control: float, most: int, share: float = 0.2) -> Comparison:
    """Look after every value until a verdict, or until the canary has `most` values."""
    rng = np.random.default_rng(seed)
    arms = {True: Sums(), False: Sums()}
    while arms[True].n < most:
        is_canary = bool(rng.random() < share)
        arms[is_canary] = arms[is_canary].plus(float(rng.random() < (canary if is_canary else control)))
        found = compare(arms[True], arms[False])
        if found.verdict != "undecided":
            return found
    return compare(arms[True], arms[False])


def test_equal_arms_are_rarely_called_worse() -> None:
    runs = [canary_run(seed, canary=0.7, control=0.7, most=300) for seed in range(100)]

    assert sum(run.verdict == "worse" for run in runs) <= 5


def test_an_arm_ten_points_worse_is_found_within_500_values() -> None:
    runs = [canary_run(seed, canary=0.6, control=0.7, most=500) for seed in range(60)]

    assert sum(run.verdict == "worse" for run in runs) >= 48
    assert all(run.verdict != "better" for run in runs)


def test_a_better_arm_is_called_better() -> None:
    assert canary_run(0, canary=0.9, control=0.6, most=500).verdict == "better"


def test_sums_of_replicas_add_up() -> None:
    values = [0.1, 0.5, 1.0, 0.0, 0.7]
    one, left, right = Sums(), Sums(), Sums()
    for number, value in enumerate(values):
        one = one.plus(value)
        left, right = (left.plus(value), right) if number % 2 else (left, right.plus(value))

    together = left + right
    assert together.n == one.n
    assert together.mean == pytest.approx(np.mean(values))
    assert together.variance() == pytest.approx(one.variance())


def test_no_verdict_before_the_least_number_of_values() -> None:
    few = Sums(LEAST_VALUES - 1, 0.0, 0.0)
    many = Sums(1000, 1000.0, 1000.0)

    assert compare(few, many).verdict == "undecided"
    assert compare(few.plus(0.0), many).verdict == "worse"


def test_an_arm_without_values_has_no_interval() -> None:
    found = compare(Sums(), Sums(10, 5.0, 5.0))

    assert (found.difference, found.lower, found.upper, found.verdict) == (None, None, None, "undecided")


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InputError, match="alpha"):
        compare(Sums(1, 1, 1), Sums(1, 1, 1), alpha=0.7)
    with pytest.raises(InputError, match="span"):
        compare(Sums(1, 1, 1), Sums(1, 1, 1), span=0)
    with pytest.raises(InputError, match="finite"):
        Sums().plus(math.nan)
