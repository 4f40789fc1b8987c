"""Limits hold for every window, over all replicas, and over a restart."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.limits.keys import KeyLimits
from deployments.limits.ledger import REPLICA_LOST_S, WINDOW_S, Ledger
from deployments.limits.messages import (
    ReserveRequest,
    SyncRequest,
    Totals,
    UnconfirmedUsage,
    UsageChange,
)
from deployments.limits.steady_clock import SteadyClock
from tests.deployments.fakes import Clock

KEY = "0123456789ab"
FIXTURES = Path(__file__).parent / "fixtures"


def want(tokens: int = 10, usd: float = 0.0, **limits: float) -> ReserveRequest:
    return ReserveRequest(KEY, KeyLimits.model_validate(limits), tokens, usd)


def granted(ledger: Ledger, wanted: ReserveRequest, times: int, replica: str = "a") -> int:
    return sum(ledger.reserve(replica, wanted).code is None for _ in range(times))


def test_requests_per_minute_hold_and_come_back_after_a_minute() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    wanted = want(requests_per_minute=5)

    assert granted(ledger, wanted, 8) == 5
    rejection = ledger.reserve("a", wanted)
    assert rejection.code == "rate_limit_exceeded"
    assert WINDOW_S - 1 < rejection.retry_after_s <= WINDOW_S + 1
    clock.now += rejection.retry_after_s
    assert granted(ledger, wanted, 8) == 5


def test_tokens_are_reserved_and_unused_ones_are_returned() -> None:
    ledger = Ledger(Clock())
    wanted = want(tokens=60, tokens_per_minute=100)

    assert granted(ledger, wanted, 2) == 1
    ledger.add(UsageChange(KEY, 1000.0, 0, -50, 0.0))
    assert granted(ledger, wanted, 2) == 1


def test_a_request_above_the_whole_limit_gets_a_long_retry_after() -> None:
    rejection = Ledger(Clock()).reserve("a", want(tokens=101, tokens_per_minute=100))

    assert rejection.code == "tokens_limit_exceeded"
    assert rejection.retry_after_s > 120


def test_a_budget_holds_for_the_day_of_utc() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    wanted = want(usd=0.4, usd_per_day=1.0)

    assert granted(ledger, wanted, 5) == 2
    rejection = ledger.reserve("a", wanted)
    assert rejection.code == "budget_exceeded"
    clock.now += rejection.retry_after_s
    assert granted(ledger, wanted, 5) == 2


def test_concurrency_is_counted_over_replicas_and_freed_when_requests_end() -> None:
    ledger = Ledger(Clock())
    wanted = want(max_concurrent=3)

    assert granted(ledger, wanted, 2, "a") + granted(ledger, wanted, 2, "b") == 3
    ledger.end_request("a", KEY)
    assert granted(ledger, wanted, 2, "b") == 1


def test_a_replica_that_died_holds_nothing_after_a_while() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    wanted = want(max_concurrent=2)
    assert granted(ledger, wanted, 2, "dead") == 2
    clock.now += REPLICA_LOST_S + 1
    ledger.update_in_flight("alive", {})

    assert granted(ledger, wanted, 3, "alive") == 2


def test_a_replicas_own_count_in_flight_replaces_the_sum() -> None:
    ledger = Ledger(Clock())
    wanted = want(max_concurrent=2)
    response = ledger.sync(SyncRequest("a", {}, (), (wanted, wanted, wanted)))
    assert [verdict.code for verdict in response.verdicts] == [None, None, "concurrency_limit_exceeded"]

    assert (
        ledger.sync(SyncRequest("a", {KEY: 1}, (), (wanted,), number=2, confirmed=1)).verdicts[0].code is None
    )
    assert response.totals[KEY].in_flight == 2


def test_counts_survive_as_json() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    granted(ledger, want(tokens=7, usd=0.5), 3)
    restored = Ledger(clock)
    restored.restore(json.loads(json.dumps(ledger.snapshot())))

    assert restored.totals(KEY) == ledger.totals(KEY) == Totals(3, 21, 1.5, 3)


def test_a_snapshot_of_another_version_is_rejected() -> None:
    with pytest.raises(ValueError, match="version"):
        Ledger(Clock()).restore({"version": 9})


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 40)), max_size=120),
    limit=st.integers(1, 50),
    tokens_limit=st.integers(40, 400),
)
def test_no_window_of_a_minute_ever_holds_more_than_the_limits(
    steps: list[tuple[float, int]], limit: int, tokens_limit: int
) -> None:
    clock = Clock()
    ledger = Ledger(clock)
    admitted: list[tuple[float, int]] = []
    for pause, tokens in steps:
        clock.now += pause
        wanted = want(tokens=tokens, requests_per_minute=limit, tokens_per_minute=tokens_limit)
        if ledger.reserve("a", wanted).code is None:
            admitted.append((clock.now, tokens))

    for at, _ in admitted:
        window = [tokens for when, tokens in admitted if at - WINDOW_S < when <= at]
        assert len(window) <= limit
        assert sum(window) <= tokens_limit


def test_a_call_counts_once_however_often_and_late_it_arrives() -> None:
    ledger = Ledger(Clock())
    spent = (UsageChange(KEY, 1000.0, 1, 10, 1.0),)
    first = SyncRequest("a", {}, spent, number=1)
    ledger.sync(first)
    ledger.sync(first)
    ledger.sync(SyncRequest("a", {}, number=2, unconfirmed=UnconfirmedUsage(1, spent)))
    ledger.sync(SyncRequest("a", {}, number=4, unconfirmed=UnconfirmedUsage(3, spent)))
    ledger.sync(SyncRequest("a", {}, spent, number=3))

    assert (ledger.totals(KEY).requests, ledger.totals(KEY).usd) == (2, 2.0)


def test_grants_of_a_call_with_a_lost_response_are_taken_back() -> None:
    ledger = Ledger(Clock())
    ledger.sync(SyncRequest("a", {}, (), (want(tokens=7, usd=0.5),), number=1))
    ledger.sync(SyncRequest("a", {KEY: 1}, (), (want(tokens=7, usd=0.5),), number=2, confirmed=1))
    counted = ledger.totals(KEY)
    ledger.sync(SyncRequest("a", {KEY: 1}, number=3, confirmed=1))

    assert (counted.requests, counted.tokens, counted.usd) == (2, 14, 1.0)
    assert (ledger.totals(KEY).requests, ledger.totals(KEY).usd) == (1, 0.5)


def lost_replica() -> tuple[Ledger, Clock]:
    """A ledger, and its clock, after a replica was lost with one request of a dollar that is half prompt."""
    clock = Clock()
    ledger = Ledger(clock)
    request = ReserveRequest(KEY, KeyLimits(usd_per_day=1.0), 10, 1.0, 0.5)
    ledger.sync(SyncRequest("a", {}, requests=(request,), number=1))
    clock.now += 1
    ledger.sync(SyncRequest("a", {KEY: 1}, number=2, confirmed=1, completion_usd={KEY: 0.5}))
    clock.now += REPLICA_LOST_S + 1
    ledger.sync(SyncRequest("b", {}, number=1))
    return ledger, clock


def test_a_lost_replicas_completions_are_given_back_and_its_prompts_are_not() -> None:
    ledger, _ = lost_replica()

    assert ledger.totals(KEY).usd == 0.5


def test_a_replica_that_was_away_is_charged_again_and_settles_as_usual() -> None:
    ledger, _ = lost_replica()
    ledger.sync(SyncRequest("a", {KEY: 1}, number=3, confirmed=2, completion_usd={KEY: 0.5}))
    before = ledger.totals(KEY).usd
    settled = UsageChange(KEY, 1012.0, 0, -5, -0.3)
    ledger.sync(SyncRequest("a", {}, (settled,), number=4, confirmed=3))

    assert before == 1.0
    assert ledger.totals(KEY).usd == pytest.approx(0.7)


def test_a_request_granted_in_a_lost_replicas_last_call_is_given_back_too() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    request = ReserveRequest(KEY, KeyLimits(usd_per_day=1.0), 10, 1.0, 0.75)
    ledger.sync(SyncRequest("a", {}, requests=(request,), number=1))
    clock.now += REPLICA_LOST_S + 1
    ledger.sync(SyncRequest("b", {}, number=1))

    assert ledger.totals(KEY).usd == 0.25


def test_a_restored_ledger_knows_which_calls_it_counted() -> None:
    spent = (UsageChange(KEY, 1000.0, 1, 10, 1.0),)
    ledger = Ledger(Clock())
    ledger.sync(SyncRequest("a", {}, spent, number=1))
    restored = Ledger(Clock())
    restored.restore(json.loads(json.dumps(ledger.snapshot())))
    restored.sync(SyncRequest("a", {}, number=2, unconfirmed=UnconfirmedUsage(1, spent)))

    assert restored.totals(KEY).usd == 1.0


def test_counts_of_an_earlier_version_still_load() -> None:
    clock = Clock()
    clock.now = 1_750_000_002.0
    ledger = Ledger(clock)
    ledger.restore(json.loads((FIXTURES / "keys.counts.json").read_text(encoding="utf-8")))
    before = ledger.totals(KEY)
    ledger.sync(SyncRequest("replica-1-aaaa", {}, (UsageChange(KEY, clock.now, 1, 1, 1.0),), number=2))

    assert before == Totals(2, 12, 0.625, 2)
    assert ledger.totals(KEY) == before


@pytest.mark.parametrize("damaged", [[], None, {"version": 1}, {"version": 1, "accounts": []}, "", 7])
def test_a_damaged_snapshot_is_rejected_and_changes_nothing(damaged: Any) -> None:
    ledger = Ledger(Clock())
    ledger.reserve("a", want(tokens=7, tokens_per_minute=10))
    with pytest.raises(ValueError, match="ledger snapshot"):
        ledger.restore(damaged)

    assert ledger.totals(KEY).tokens == 7


def test_counts_of_a_clock_that_was_ahead_leave_their_window() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    ledger.reserve("a", want(requests_per_minute=1))
    clock.now -= 3600
    restarted = Ledger(clock)
    restarted.restore(json.loads(json.dumps(ledger.snapshot())))
    clock.now += WINDOW_S + 1

    assert restarted.totals(KEY).requests == 0


def test_idle_keys_are_forgotten_and_budgets_are_not() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    ledger.add(UsageChange("idle", clock(), 1, 10, 0.0))
    ledger.add(UsageChange("paid", clock(), 1, 10, 0.5))
    clock.now += WINDOW_S + 1
    ledger.prune()

    assert ledger.snapshot()["accounts"].keys() == {"paid"}


def test_a_steady_clock_ignores_changes_of_the_time_of_day() -> None:
    wall, monotonic = Clock(), Clock()
    wall.now = 5000.0
    clock = SteadyClock(wall, monotonic)
    wall.now -= 3600
    monotonic.now += 2

    assert clock() == 5002.0
