"""An ingress replica calls in batches, holds the limits alone while the ledger is away, and reports then."""

import asyncio

import pytest

from deployments.contracts.errors import TooMany
from deployments.limits.keys import Caller, KeyLimits
from deployments.limits.ledger import Ledger
from deployments.limits.ledger_client import LedgerClient, Reservation
from deployments.limits.messages import SyncRequest, SyncResponse
from tests.deployments.fakes import Clock

KEY = "0123456789ab"


class Transport:
    """Connection to a ledger in this process; can be cut, and lets other tasks run as a real one does."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.calls: list[SyncRequest] = []
        self.cut = False
        self.loses_responses = False
        """Whether calls arrive and responses do not."""

    async def sync(self, call: SyncRequest, timeout_s: float) -> SyncResponse:
        self.calls.append(call)
        await asyncio.sleep(0)
        if self.cut:
            raise ConnectionError("cut")
        response = self.ledger.sync(call)
        if self.loses_responses:
            raise TimeoutError
        return response


def caller(**limits: float) -> Caller:
    return Caller(KEY, limits=KeyLimits.model_validate(limits))


async def many(client: LedgerClient, key: Caller, times: int) -> list[Reservation]:
    results = await asyncio.gather(
        *(client.reserve(key, 10, 0.01) for _ in range(times)), return_exceptions=True
    )
    assert all(isinstance(one, Reservation | TooMany) for one in results)
    return [one for one in results if isinstance(one, Reservation)]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def transport(clock: Clock) -> Transport:
    return Transport(Ledger(clock))


async def test_a_hundred_requests_over_two_replicas_never_pass_the_limit(
    clock: Clock, transport: Transport
) -> None:
    replicas = [LedgerClient(name, transport, clock) for name in ("a", "b")]
    key = caller(requests_per_minute=60)
    admitted = await asyncio.gather(*(many(replica, key, 50) for replica in replicas))

    assert sum(map(len, admitted)) == 60
    assert len(transport.calls) <= 6


async def test_a_key_without_limits_costs_no_call(clock: Clock, transport: Transport) -> None:
    await many(LedgerClient("a", transport, clock), caller(), 5)

    assert transport.calls == []


async def test_a_request_that_ended_frees_its_slot_for_other_replicas(
    clock: Clock, transport: Transport
) -> None:
    one, other = (LedgerClient(name, transport, clock) for name in ("a", "b"))
    key = caller(max_concurrent=2)
    (first, _) = await many(one, key, 3)
    assert await many(other, key, 1) == []
    first.settle(5, 0.0)
    first.settle(5, 0.0)
    await settle()

    assert len(await many(other, key, 2)) == 1


async def test_unused_tokens_and_dollars_come_back(clock: Clock, transport: Transport) -> None:
    client = LedgerClient("a", transport, clock)
    key = caller(tokens_per_minute=15, usd_per_day=0.011)
    (reservation,) = await many(client, key, 2)
    reservation.settle(1, 0.001)
    await settle()

    assert len(await many(client, key, 2)) == 1


async def test_without_the_ledger_the_last_known_counts_hold(clock: Clock, transport: Transport) -> None:
    one, other = (LedgerClient(name, transport, clock) for name in ("a", "b"))
    key = caller(requests_per_minute=10)
    assert len(await many(other, key, 6)) == 6
    assert len(await many(one, key, 2)) == 2
    transport.cut = True

    assert len(await many(one, key, 5)) == 2
    assert one.away
    calls = len(transport.calls)
    assert await many(one, key, 5) == []
    assert len(transport.calls) == calls


async def test_usage_without_the_ledger_is_reported_afterwards(clock: Clock, transport: Transport) -> None:
    client = LedgerClient("a", transport, clock)
    key = caller(requests_per_minute=10)
    transport.cut = True
    reservations = await many(client, key, 4)
    reservations[0].settle(3, 0.0)
    transport.cut = False
    await client._call()

    totals = transport.ledger.totals(KEY)
    assert (totals.requests, totals.tokens, totals.in_flight) == (4, 33, 3)
    assert not client.away


async def test_a_client_that_leaves_during_a_call_gives_everything_back(
    clock: Clock, transport: Transport
) -> None:
    client = LedgerClient("a", transport, clock)
    key = caller(max_concurrent=1, tokens_per_minute=10)
    for pause in range(4):
        leaver = asyncio.create_task(client.reserve(key, 10, 0.0))
        for _ in range(pause):
            await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        if not leaver.cancelled():
            leaver.result().settle(0, 0.0)
        await settle()

    assert len(await many(client, key, 1)) == 1


async def test_the_heartbeat_can_be_stopped(clock: Clock, transport: Transport) -> None:
    client = LedgerClient("a", transport, clock)
    client.start()
    await client.stop()

    assert transport.calls == []


async def test_lost_responses_make_nothing_count_twice(clock: Clock, transport: Transport) -> None:
    client = LedgerClient("a", transport, clock)
    key = caller(usd_per_day=100)
    (first,) = await many(client, key, 1)
    transport.loses_responses = True
    (second,) = await many(client, key, 1)
    for reservation in (first, second):
        reservation.settle(4, 0.001)
    for _ in range(3):
        await client._call()
    transport.loses_responses = False
    await client._call()
    client._kick()
    await settle()

    totals = transport.ledger.totals(KEY)
    assert (totals.requests, totals.tokens, totals.in_flight) == (2, 8, 0)
    assert totals.usd == pytest.approx(0.002)


async def test_requests_that_wait_when_the_client_stops_are_decided(
    clock: Clock, transport: Transport
) -> None:
    client = LedgerClient("a", transport, clock)
    for steps in range(3):
        waiting = asyncio.create_task(client.reserve(caller(max_concurrent=9), 10, 0.0))
        for _ in range(1 + steps):
            await asyncio.sleep(0)
        await client.stop()

        assert isinstance(await asyncio.wait_for(waiting, 1), Reservation)


class Faulty(Transport):
    """Raises what no client expects, or ignores calls, while it is set to."""

    fault: Exception | None = None
    ignores = False

    async def sync(self, call: SyncRequest, timeout_s: float) -> SyncResponse:
        if self.fault is not None:
            raise self.fault
        return SyncResponse((), {}) if self.ignores else await super().sync(call, timeout_s)


async def test_an_unforeseen_error_ends_neither_the_heartbeat_nor_a_request(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.limits.ledger_client.HEARTBEAT_S", 0.0)
    transport = Faulty(Ledger(clock))
    transport.fault = RuntimeError("unforeseen")
    client = LedgerClient("a", transport, clock)
    client.start()
    assert len(await many(client, caller(requests_per_minute=1), 2)) == 1
    await settle()
    transport.fault = None
    await settle()

    assert transport.calls
    assert transport.ledger.totals(KEY).in_flight == 1
    await client.stop()


async def test_a_call_that_the_ledger_ignored_leaves_no_request_waiting(clock: Clock) -> None:
    transport = Faulty(Ledger(clock))
    transport.ignores = True

    assert len(await many(LedgerClient("a", transport, clock), caller(requests_per_minute=1), 2)) == 1


async def test_clocks_of_replicas_may_differ(clock: Clock, transport: Transport) -> None:
    behind = LedgerClient("a", transport, lambda: clock() - 3600)
    (reservation,) = await many(behind, caller(tokens_per_minute=100, usd_per_day=1), 1)
    reservation.settle(3, 0.001)
    await settle()

    assert transport.ledger.totals(KEY).tokens == 3
    assert transport.ledger.totals(KEY).usd == pytest.approx(0.001)
