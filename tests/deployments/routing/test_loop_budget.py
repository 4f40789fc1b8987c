"""Short batches stay on the event loop, long ones leave it."""

from deployments.routing.loop_budget import REMEMBERED, LoopBudget

SHORT = [30]


def learnt(seconds: float, count: int = 1) -> LoopBudget:
    budget = LoopBudget(longest_s=0.002)
    budget.measured(SHORT * count, seconds)
    return budget


def test_before_any_batch_one_text_fits() -> None:
    assert LoopBudget().fits(SHORT)
    assert not LoopBudget().fits(SHORT * 2)


def test_twice_as_many_are_expected_to_take_twice_as_long() -> None:
    budget = learnt(0.0009)

    assert budget.fits(SHORT * 2)
    assert not budget.fits(SHORT * 4)


def test_a_larger_batch_that_was_short_fits_again() -> None:
    budget = learnt(0.0009)
    budget.measured(SHORT * 16, 0.001)

    assert budget.fits(SHORT * 16)
    assert budget.fits(SHORT * 4)


def test_what_a_size_took_counts_more_than_other_sizes() -> None:
    budget = learnt(0.0001)
    budget.measured(SHORT * 16, 0.003)

    assert not budget.fits(SHORT * 16)
    assert budget.fits(SHORT * 2)


def test_a_size_that_was_long_fits_once_it_is_short() -> None:
    budget = learnt(0.9)
    assert not budget.fits(SHORT)
    for _ in range(REMEMBERED):
        budget.measured(SHORT, 0.001)

    assert budget.fits(SHORT)


def test_a_long_text_counts_as_many_short_ones() -> None:
    budget = learnt(0.0005)

    assert not budget.fits([8_000])
    assert budget.fits([30])


def test_one_slow_batch_among_fast_ones_changes_nothing() -> None:
    budget = learnt(0.0005)
    for seconds in (0.0005, 0.9, 0.0005):
        budget.measured(SHORT, seconds)

    assert budget.fits(SHORT * 2)
