"""Limits hold for every window, over all replicas, and over a restart."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.limits.keys import KeyLimits
from deployments.limits.ledger import (
    REPLICA_LOST_S,
    WINDOW_S,
    Ledger,
    Reserve,
    Sync,
    Totals,
    Unanswered,
    Used,
)
from tests.deployments.fakes import Clock

KEY = "0123456789ab"


def want(tokens: int = 10, usd: float = 0.0, **limits: float) -> Reserve:
    return Reserve(KEY, KeyLimits.model_validate(limits), tokens, usd)


def granted(ledger: Ledger, wanted: Reserve, times: int, replica: str = "a") -> int:
    return sum(ledger.reserve(replica, wanted).code is None for _ in range(times))


def test_requests_per_minute_hold_and_come_back_after_a_minute() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    wanted = want(requests_per_minute=5)

    assert granted(ledger, wanted, 8) == 5
    refused = ledger.reserve("a", wanted)
    assert refused.code == "rate_limit_exceeded"
    assert WINDOW_S - 1 < refused.retry_after_s <= WINDOW_S + 1
    clock.now += refused.retry_after_s
    assert granted(ledger, wanted, 8) == 5


def test_tokens_are_reserved_and_what_was_not_used_comes_back() -> None:
    ledger = Ledger(Clock())
    wanted = want(tokens=60, tokens_per_minute=100)

    assert granted(ledger, wanted, 2) == 1
    ledger.used(Used(KEY, 1000.0, 0, -50, 0.0))
    assert granted(ledger, wanted, 2) == 1


def test_a_request_larger_than_the_whole_limit_is_told_not_to_come_back_soon() -> None:
    refused = Ledger(Clock()).reserve("a", want(tokens=101, tokens_per_minute=100))

    assert refused.code == "tokens_limit_exceeded"
    assert refused.retry_after_s > 120


def test_a_budget_holds_for_the_day_of_utc() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    wanted = want(usd=0.4, usd_per_day=1.0)

    assert granted(ledger, wanted, 5) == 2
    refused = ledger.reserve("a", wanted)
    assert refused.code == "budget_exceeded"
    clock.now += refused.retry_after_s
    assert granted(ledger, wanted, 5) == 2


def test_concurrency_is_counted_over_replicas_and_freed_when_requests_end() -> None:
    ledger = Ledger(Clock())
    wanted = want(max_concurrent=3)

    assert granted(ledger, wanted, 2, "a") + granted(ledger, wanted, 2, "b") == 3
    ledger.ended("a", KEY)
    assert granted(ledger, wanted, 2, "b") == 1


def test_a_replica_that_died_holds_nothing_after_a_while() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    wanted = want(max_concurrent=2)
    assert granted(ledger, wanted, 2, "dead") == 2
    clock.now += REPLICA_LOST_S + 1
    ledger.heard("alive", {})

    assert granted(ledger, wanted, 3, "alive") == 2


def test_a_replicas_own_word_on_what_is_in_flight_counts() -> None:
    ledger = Ledger(Clock())
    wanted = want(max_concurrent=2)
    synced = ledger.sync(Sync("a", {}, (), (wanted, wanted, wanted)))
    assert [verdict.code for verdict in synced.verdicts] == [None, None, "concurrency_limit_exceeded"]

    assert ledger.sync(Sync("a", {KEY: 1}, (), (wanted,), number=2, answered=1)).verdicts[0].code is None
    assert synced.totals[KEY].in_flight == 2


def test_counts_survive_as_json() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    granted(ledger, want(tokens=7, usd=0.5), 3)
    restored = Ledger(clock)
    restored.restore(json.loads(json.dumps(ledger.snapshot())))

    assert restored.totals(KEY) == ledger.totals(KEY) == Totals(3, 21, 1.5, 3)


def test_a_strange_snapshot_is_refused() -> None:
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
    let_in: list[tuple[float, int]] = []
    for pause, tokens in steps:
        clock.now += pause
        wanted = want(tokens=tokens, requests_per_minute=limit, tokens_per_minute=tokens_limit)
        if ledger.reserve("a", wanted).code is None:
            let_in.append((clock.now, tokens))

    for at, _ in let_in:
        window = [tokens for when, tokens in let_in if at - WINDOW_S < when <= at]
        assert len(window) <= limit
        assert sum(window) <= tokens_limit


def test_a_call_is_counted_once_however_often_and_late_it_is_heard() -> None:
    ledger = Ledger(Clock())
    spent = (Used(KEY, 1000.0, 1, 10, 1.0),)
    first = Sync("a", {}, spent, number=1)
    ledger.sync(first)
    ledger.sync(first)
    ledger.sync(Sync("a", {}, number=2, again=Unanswered(1, spent)))
    ledger.sync(Sync("a", {}, number=4, again=Unanswered(3, spent)))
    ledger.sync(Sync("a", {}, spent, number=3))

    assert (ledger.totals(KEY).requests, ledger.totals(KEY).usd) == (2, 2.0)


def test_what_was_granted_in_a_call_whose_answer_was_lost_is_taken_back() -> None:
    ledger = Ledger(Clock())
    ledger.sync(Sync("a", {}, (), (want(tokens=7, usd=0.5),), number=1))
    ledger.sync(Sync("a", {KEY: 1}, (), (want(tokens=7, usd=0.5),), number=2, answered=1))
    heard = ledger.totals(KEY)
    ledger.sync(Sync("a", {KEY: 1}, number=3, answered=1))

    assert (heard.requests, heard.tokens, heard.usd) == (2, 14, 1.0)
    assert (ledger.totals(KEY).requests, ledger.totals(KEY).usd) == (1, 0.5)


def test_a_restored_ledger_knows_which_calls_it_has_heard() -> None:
    spent = (Used(KEY, 1000.0, 1, 10, 1.0),)
    ledger = Ledger(Clock())
    ledger.sync(Sync("a", {}, spent, number=1))
    restored = Ledger(Clock())
    restored.restore(json.loads(json.dumps(ledger.snapshot())))
    restored.sync(Sync("a", {}, number=2, again=Unanswered(1, spent)))

    assert restored.totals(KEY).usd == 1.0
