"""Which of two breakers counts a failure: the engine's, or that of the adapter alone."""

import pytest

from deployments.contracts.errors import (
    BadRequest,
    ExpertBroken,
    ExpertError,
    ExpertOverloaded,
    ExpertTimeout,
    ExpertUnavailable,
    ExpertUnreachable,
)
from deployments.upstream.adapter_breaker import AdapterBreaker
from deployments.upstream.circuit_breaker import FAILURES_TO_OPEN, OPEN_S, CircuitBreaker
from tests.deployments.fakes import Clock


class Pair:
    """Two adapters of one engine."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.engine = CircuitBreaker(self.clock)
        self.sql, self.support = (AdapterBreaker(self.engine, CircuitBreaker(self.clock)) for _ in range(2))

    def fail(self, error: BaseException, *, timed_out: bool = False) -> None:
        for request in range(FAILURES_TO_OPEN):
            self.sql.record_start()
            self.sql.record_error(error, timed_out=timed_out, request=request)

    def available(self) -> tuple[bool, bool, bool]:
        return self.engine.available(), self.sql.available(), self.support.available()


@pytest.mark.parametrize("error", [ExpertUnavailable("sql", "gone"), ExpertUnreachable("sql", "none")])
def test_a_replica_that_is_away_opens_all_at_once(error: ExpertError) -> None:
    pair = Pair()
    pair.fail(error)

    assert pair.available() == (False, False, False)
    assert pair.support.state == "open"
    assert pair.support.retry_after_s() == OPEN_S


@pytest.mark.parametrize(
    ("error", "timed_out"), [(ExpertBroken("sql", "500"), False), (ExpertTimeout("sql", "slow"), True)]
)
def test_an_adapter_that_fails_alone_opens_its_own_alone(error: ExpertError, timed_out: bool) -> None:
    pair = Pair()
    pair.fail(error, timed_out=timed_out)

    assert pair.available() == (True, False, True)
    assert pair.sql.state == "open"


def test_streams_that_break_off_count_against_the_adapter() -> None:
    pair = Pair()
    for request in range(FAILURES_TO_OPEN):
        pair.sql.record_success(request)
        pair.sql.record_break(request)

    assert pair.available() == (True, False, True)


@pytest.mark.parametrize(
    "error", [ExpertOverloaded("sql", "429"), BadRequest("no"), ExpertTimeout("sql", "short deadline")]
)
def test_other_errors_open_neither(error: BaseException) -> None:
    pair = Pair()
    pair.fail(error)

    assert pair.available() == (True, True, True)


def test_one_probe_of_any_variant_closes_the_engines() -> None:
    pair = Pair()
    pair.fail(ExpertUnavailable("sql", "gone"))
    pair.clock.now += OPEN_S
    before = pair.support.state
    pair.sql.record_start()
    while_probed = pair.available()
    pair.sql.record_success(9)

    assert before == "half_open"
    assert while_probed == (False, False, False)
    assert pair.available() == (True, True, True)


def test_a_probe_that_breaks_off_opens_the_engine_again() -> None:
    pair = Pair()
    pair.fail(ExpertUnavailable("sql", "gone"))
    pair.clock.now += OPEN_S
    pair.sql.record_start()
    pair.sql.record_success(9)
    pair.sql.record_break(9)

    assert pair.available() == (False, False, False)


def test_a_failed_adapter_recovers_by_its_own_probe() -> None:
    pair = Pair()
    pair.fail(ExpertBroken("sql", "500"))
    pair.clock.now += OPEN_S
    pair.sql.record_start()
    while_probed = pair.available()
    pair.sql.record_success(9)

    assert while_probed == (True, False, True)
    assert pair.available() == (True, True, True)


def test_responses_of_other_adapters_do_not_excuse_a_slow_one() -> None:
    pair = Pair()
    pair.support.record_success(1)

    assert not pair.sql.answered_since(0.0)
    assert pair.support.answered_since(0.0)
