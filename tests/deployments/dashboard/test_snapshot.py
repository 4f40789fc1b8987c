"""Snapshots for Board: gathered once a second, with the metrics that Board shows."""

import asyncio
import gzip
import json

import pytest

from deployments.dashboard.snapshot import MetricsSnapshots
from tests.deployments.dashboard.graph import NAMES, Graph
from tests.deployments.fakes import Clock


async def test_many_boards_gather_once_a_second() -> None:
    clock, gathered = Clock(), []

    async def gather() -> bytes:
        gathered.append(clock())
        return b'to_router_requests_total{kind="chat",outcome="200",replica="a"} 3.0\n'

    board = MetricsSnapshots(Graph().api.registry, gather, clock, now=lambda: 12.0)

    first = await board.snapshot()
    assert await board.snapshot() is first
    clock.now += 1.0
    await board.snapshot()

    assert len(gathered) == 2
    assert gzip.decompress(first.zipped) == first.plain
    assert json.loads(first.plain)["at"] == 12.0


async def test_metrics_by_key_are_not_in_a_snapshot() -> None:
    async def gather() -> bytes:
        return (
            b'to_router_key_cost_usd_total{key="a"} 3.0\nprocess_open_fds 3\n'
            b'to_router_stage_seconds_sum{stage="parse"} 1\nto_router_stage_seconds_sum{stage="whole"} 1\n'
        )

    board = MetricsSnapshots(Graph().api.registry, gather)

    view = json.loads((await board.snapshot()).plain)

    assert view["metrics"] == 'to_router_stage_seconds_sum{stage="whole"} 1'
    assert set(view["experts"]) == set(NAMES)
    assert view["experts"]["words"]["running"] == 1


async def test_snapshot_reports_an_expert_scaled_to_zero() -> None:
    graph = Graph()
    graph.api.registry.experts["words"].state.scaled_to_zero = True

    async def gather() -> bytes:
        return b""

    view = json.loads((await MetricsSnapshots(graph.api.registry, gather).snapshot()).plain)

    assert view["experts"]["words"]["scaled_to_zero"] is True
    assert view["experts"]["atlas"]["scaled_to_zero"] is False


async def test_an_opened_board_gets_the_history_before_it() -> None:
    clock, count = Clock(), 0

    async def gather() -> bytes:
        return f'to_router_requests_total{{outcome="200",replica="a"}} {count}\n'.encode()

    board = MetricsSnapshots(Graph().api.registry, gather, clock, now=clock)
    await board.snapshot()
    clock.now += 10
    count = 4
    view = json.loads((await board.with_history()).plain)

    assert view["history"]["series"] == {'to_router_requests_total{outcome="200"}': [4]}
    assert view["history"]["at"][-1] == view["at"]
    assert "history" not in json.loads((await board.snapshot()).plain)


async def test_history_goes_on_after_a_gathering_that_failed() -> None:
    clock, failures = Clock(), [ValueError("a replica sent what is no text")]

    async def gather() -> bytes:
        if failures:
            raise failures.pop()
        return b"to_router_requests_total 1\n"

    waits: list[float] = []

    async def wait(seconds: float) -> None:
        clock.now += seconds
        waits.append(seconds)
        if len(waits) == 3:
            raise asyncio.CancelledError

    board = MetricsSnapshots(Graph().api.registry, gather, clock, now=clock)
    with pytest.raises(asyncio.CancelledError):
        await board.keep_history(wait)

    assert len(json.loads((await board.with_history()).plain)["history"]["at"]) >= 2
