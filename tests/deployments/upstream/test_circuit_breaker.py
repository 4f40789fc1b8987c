"""The circuit breaker, on a clock that the test moves."""

import asyncio

import pytest

from deployments.contracts.errors import (
    BadRequest,
    ExpertBroken,
    ExpertOverloaded,
    ExpertTimeout,
    ExpertUnavailable,
)
from deployments.upstream.circuit_breaker import FAILURES_TO_OPEN, OPEN_S, CircuitBreaker
from tests.deployments.fakes import Clock


def opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(clock)
    for _ in range(FAILURES_TO_OPEN):
        breaker.record_failure()
    return breaker


def test_failures_in_a_row_open_it_unless_a_success_intervenes() -> None:
    breaker = CircuitBreaker(Clock())
    for _ in range(3 * FAILURES_TO_OPEN):
        breaker.record_failure()
        breaker.record_success()

    assert breaker.state == "closed"
    assert opened(Clock()).state == "open"


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
