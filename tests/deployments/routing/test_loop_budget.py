"""Short batches stay on the event loop, long ones leave it."""

from deployments.routing.loop_budget import PROBE_EVERY, LoopBudget

SHORT = [30]


def learnt(seconds: float, count: int = 1) -> LoopBudget:
    budget = LoopBudget(longest_s=0.002)
    budget.measured(SHORT * count, seconds)
    return budget


def test_the_first_text_of_all_is_tried() -> None:
    assert LoopBudget().fits(SHORT * 8) == 1


def test_as_many_as_are_short_enough_together_fit() -> None:
    budget = learnt(0.0005)

    assert budget.fits(SHORT) == 1
    assert budget.fits(SHORT * 2) == 2
    assert 1 <= budget.fits(SHORT * 64) < 8


def test_a_larger_batch_that_was_short_allows_more() -> None:
    budget = learnt(0.0005)
    budget.measured(SHORT * 16, 0.001)

    assert budget.fits(SHORT * 16) == 16


def test_long_work_does_not_fit_but_is_tried_again_at_times() -> None:
    budget = learnt(0.005)

    fitted = [budget.fits(SHORT * 4) for _ in range(PROBE_EVERY)]

    assert fitted == [0] * (PROBE_EVERY - 1) + [1]


def test_a_long_text_counts_as_many_short_ones() -> None:
    budget = learnt(0.0005)

    assert budget.fits([8_000]) == 0
    assert budget.fits([30, 8_000]) == 1


def test_one_slow_batch_among_fast_ones_changes_nothing() -> None:
    budget = learnt(0.0005)
    for seconds in (0.0005, 0.9, 0.0005):
        budget.measured(SHORT, seconds)

    assert budget.fits(SHORT * 2) == 2
