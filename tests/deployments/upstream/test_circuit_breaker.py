"""The circuit breaker, on a clock that the test moves."""

import asyncio

import pytest

from deployments.contracts.errors import (
    BadRequest,
    ExpertBroken,
    ExpertOverloaded,
    ExpertTimeout,
    ExpertUnavailable,
    ExpertUnreachable,
)
from deployments.upstream.circuit_breaker import (
    FAILURES_TO_OPEN,
    OPEN_S,
    WINDOW,
    WINDOW_S,
    CircuitBreaker,
)
from tests.deployments.fakes import Clock


def opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(clock)
    for _ in range(FAILURES_TO_OPEN):
        breaker.record_failure()
    return breaker


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [("SF", "open"), ("SSF", "closed"), ("F", "open"), ("FFFFSSSSSS", "closed"), ("SSSSSSSSSSFFFFF", "open")],
)
def test_a_rate_of_failures_over_a_window_opens_it(outcomes: str, state: str) -> None:
    breaker = CircuitBreaker(Clock())
    for outcome in outcomes * (WINDOW // len(outcomes) or 1):
        if outcome == "F":
            breaker.record_failure()
        else:
            breaker.record_success()

    assert breaker.state == state


def test_failures_that_are_far_apart_do_not_open_it() -> None:
    clock = Clock()
    breaker = CircuitBreaker(clock)
    for _ in range(3 * FAILURES_TO_OPEN):
        breaker.record_failure()
        clock.now += WINDOW_S / 2

    assert breaker.state == "closed"


def test_one_request_that_is_repeated_is_one_failure() -> None:
    breaker = CircuitBreaker(Clock())
    for _ in range(3 * WINDOW):
        breaker.record_error(ExpertUnavailable("a", "died"), timed_out=False, request=1)
    assert breaker.state == "closed"
    for request in range(2, FAILURES_TO_OPEN + 1):
        breaker.record_error(ExpertUnavailable("a", "died"), timed_out=False, request=request)

    assert breaker.state == "open"


def test_a_missing_replica_counts_whatever_was_requested() -> None:
    breaker = CircuitBreaker(Clock())
    for _ in range(FAILURES_TO_OPEN):
        breaker.record_error(ExpertUnreachable("a", "no replica"), timed_out=False, request=1)

    assert breaker.state == "open"


def test_failures_from_before_an_opening_do_not_count_after_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += OPEN_S
    breaker.record_start()
    breaker.record_success()
    breaker.record_failure()

    assert breaker.state == "closed"


def test_a_probe_that_breaks_off_after_its_first_byte_is_a_failed_one() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += OPEN_S
    breaker.record_start()
    breaker.record_success(7)
    between = breaker.state
    breaker.record_break(7)

    assert (between, breaker.state) == ("closed", "open")
    assert breaker.retry_after_s() == 2 * OPEN_S


def test_a_body_that_succeeds_again_is_no_probe_any_more() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += OPEN_S
    breaker.record_start()
    breaker.record_success(7)
    breaker.record_success(8)
    breaker.record_success(7)
    breaker.record_break(7)

    assert breaker.state == "closed"


def test_it_half_opens_for_one_probe_at_a_time() -> None:
    clock = Clock()
    breaker = opened(clock)
    assert not breaker.available()
    clock.now += OPEN_S
    assert breaker.state == "half_open"
    assert breaker.available()
    breaker.record_start()

    assert not breaker.available()
    breaker.record_success()
    assert breaker.state == "closed"


def test_a_failed_probe_doubles_the_wait() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += OPEN_S
    breaker.record_start()
    breaker.record_failure()

    assert breaker.retry_after_s() == 2 * OPEN_S


def test_an_abandoned_probe_lets_the_next_one_through() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += OPEN_S
    breaker.record_start()
    breaker.record_abandonment()

    assert breaker.available()


@pytest.mark.parametrize(
    ("error", "timed_out", "state"),
    [
        (ExpertUnavailable("a", "gone"), False, "open"),
        (ExpertBroken("a", "500"), False, "open"),
        (ExpertTimeout("a", "late"), True, "open"),
        (ExpertTimeout("a", "late"), False, "closed"),
        (asyncio.CancelledError(), False, "closed"),
        (ExpertOverloaded("a", "full"), True, "closed"),
        (BadRequest("no"), True, "closed"),
    ],
)
def test_only_an_experts_own_fault_counts_as_failure(
    error: BaseException, timed_out: bool, state: str
) -> None:
    breaker = CircuitBreaker(Clock())
    for _ in range(FAILURES_TO_OPEN):
        breaker.record_error(error, timed_out=timed_out)

    assert breaker.state == state


def test_a_rejected_request_closes_a_half_open_breaker() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += OPEN_S
    breaker.record_start()
    breaker.record_error(BadRequest("no"), timed_out=False)

    assert breaker.state == "closed"
