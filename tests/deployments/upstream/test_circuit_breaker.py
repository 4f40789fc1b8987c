"""The breaker and the learnt waits, on a clock that passes when told."""

import pytest

from deployments.upstream.circuit_breaker import (
    FAILURES_TO_OPEN,
    LEARNT_AFTER,
    LEAST_CONNECT_S,
    OPEN_S,
    PATIENCE,
    CircuitBreaker,
)
from tests.deployments.fakes import Clock


def opened(clock: Clock) -> CircuitBreaker:
    health = CircuitBreaker(clock)
    for _ in range(FAILURES_TO_OPEN):
        health.failed()
    return health


def test_failures_in_a_row_open_it_and_an_answer_between_does_not() -> None:
    health = CircuitBreaker(Clock())
    for _ in range(3 * FAILURES_TO_OPEN):
        health.failed()
        health.succeeded("stream", 0.1)

    assert health.state == "closed"
    assert opened(Clock()).state == "open"


def test_it_half_opens_for_one_probe_at_a_time() -> None:
    clock = Clock()
    health = opened(clock)
    assert not health.available()
    clock.now += OPEN_S
    assert health.state == "half_open"
    assert health.available()
    health.started()

    assert not health.available()
    health.succeeded("stream", 0.1)
    assert health.state == "closed"


def test_a_failed_probe_doubles_the_wait() -> None:
    clock = Clock()
    health = opened(clock)
    clock.now += OPEN_S
    health.started()
    health.failed()

    assert health.retry_after_s() == 2 * OPEN_S


def test_a_probe_whose_caller_left_frees_its_place() -> None:
    clock = Clock()
    health = opened(clock)
    clock.now += OPEN_S
    health.started()
    health.abandoned()

    assert health.available()


def test_the_limit_is_configured_until_it_is_learnt() -> None:
    health = CircuitBreaker(Clock())
    for _ in range(LEARNT_AFTER - 1):
        health.succeeded("stream", 1.0)
    before = health.limit_s("stream", 120)
    health.succeeded("stream", 1.0)

    assert before == 120
    assert health.limit_s("stream", 120) == 8.0
    assert health.limit_s("whole", 120) == 120
    assert health.ttft_ms == 1000


def test_a_replica_has_a_moment_to_take_a_request_and_longer_where_it_was_seen_to_need_it() -> None:
    health = CircuitBreaker(Clock())
    assert health.connect_limit_s() == LEAST_CONNECT_S

    for _ in range(50):
        health.succeeded("stream", 4.0, connected_s=2.0)

    assert health.connect_limit_s() == pytest.approx(PATIENCE * 2.0)
