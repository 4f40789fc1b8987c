"""A canary at a router replica: when it serves, and that a rollback holds."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from deployments.canary.messages import CanaryCall, CanaryStanding
from deployments.config import RouterArgs
from deployments.last_good import LastGood
from deployments.observability import metrics
from deployments.routing.canary import TRUSTED_S
from deployments.routing.deployment import Router
from deployments.routing.trials import Trials
from router.cli.canary import samples
from router.core import Decision, RouteRequest
from router.encoders import STATIC, load_encoder
from router.learning.canary import ArmSums
from router.learning.log import log_files, read_records
from router.learning.record import ShadowRecord
from router.learning.sequential import Sums
from router.policy import Policy
from router.training.train import train
from tests.router.data_sets import dataset

SUM = "What is 12 plus 30?"


class FakeCoordinator:
    """A coordinator that responds with a reason, or not at all."""

    def __init__(self) -> None:
        self.rolled_back: str | None = None
        self.sums = ArmSums(), ArmSums()
        self.away = False
        self.known: Mapping[str, str] = {}

    async def sync(self, call: CanaryCall, timeout_s: float) -> Mapping[str, CanaryStanding]:
        if self.away:
            raise ConnectionError("away")
        self.known = call.rolled_back
        return {name: CanaryStanding(*self.sums, rolled_back=self.rolled_back) for name in call.wanted}


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of two policies over the same experts."""
    encoder, folder = load_encoder(STATIC, device="cpu", threads=1), tmp_path_factory.mktemp("policies")
    for name, n in (("old", 120), ("new", 60)):
        data = dataset(n)
        trained = train(data, encoder.encode(list(data.texts)), encoder.spec, method="knn")
        trained.save(folder / name, "# Card\n")
    return folder / "old", folder / "new"


class Graph:
    """Router replicas of one machine, and their coordinator."""

    def __init__(self, old: Path, new: Path, state: Path) -> None:
        self.old, self.new = old, new
        self.last_good = LastGood(lambda: state)
        self.coordinator = FakeCoordinator()
        self.ids = Policy.load(old).policy_id, Policy.load(new).policy_id

    async def replica(self, **canary: Any) -> Router:
        args, last_good = RouterArgs(device="cpu", batch_wait_ms=0), self.last_good
        self.trials = Trials(args, last_good, lambda: self.coordinator, lambda: "replica", poll_s=0.001)
        router = Router(args, last_good=last_good, trials=self.trials)
        await self.deploy(router, **canary)
        return router

    async def deploy(self, router: Router, **canary: Any) -> None:
        config: dict[str, Any] = {"policy": str(self.old)}
        if canary:
            config["canary"] = {"policy": str(self.new), "share": 0.5, **canary}
        await router.reconfigure(config)
        assert router.describe().error is None
        await asyncio.sleep(0)  # the first look at the coordinator
        await asyncio.sleep(0)


@pytest.fixture
def graph(policies: tuple[Path, Path], tmp_path: Path) -> Graph:
    return Graph(*policies, tmp_path / "state")


async def decisions(router: Router, n: int = 60) -> list[Decision]:
    responses = await router.decide([RouteRequest(SUM, unit=f"conversation {number}") for number in range(n)])
    return [response.decision for response in responses if response.decision is not None]


async def until(true: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if true():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("not in ten seconds")


async def phase(router: Router, wanted: str) -> None:
    """Wait until the canary is in this state."""
    await until(lambda: (view := router.describe().canary) is not None and view.phase == wanted)


async def test_a_canary_decides_for_its_share_by_unit(graph: Graph) -> None:
    router = await graph.replica(share=0.5)
    await phase(router, "running")
    found = await decisions(router)

    old, new = graph.ids
    arms = [(one.policy_id, one.arm and one.arm.name) for one in found]
    assert set(arms) == {(old, "control"), (new, "canary")}
    assert arms == [(one.policy_id, one.arm and one.arm.name) for one in await decisions(router)]


async def test_a_request_without_a_unit_has_no_arm(graph: Graph) -> None:
    router = await graph.replica(share=0.5)
    await phase(router, "running")
    responses = await router.decide([RouteRequest(SUM)] * 20)

    found = [response.decision for response in responses if response.decision is not None]
    assert {(one.policy_id, one.arm) for one in found} == {(graph.ids[0], None)}


async def test_a_canary_waits_for_the_coordinator(graph: Graph) -> None:
    graph.coordinator.away = True
    router = await graph.replica(share=0.5)

    assert {one.arm for one in await decisions(router)} == {None}
    graph.coordinator.away = False
    await phase(router, "running")


async def test_a_canary_without_its_coordinator_stops_serving(graph: Graph) -> None:
    router = await graph.replica(share=0.5)
    await phase(router, "running")
    graph.coordinator.away = True
    canary = graph.trials.canary
    assert canary is not None
    now = canary.clock()
    canary.clock = lambda: now + TRUSTED_S + 1
    await phase(router, "waiting")

    assert {one.policy_id for one in await decisions(router)} == {graph.ids[0]}


async def test_a_rolled_back_canary_serves_no_request(graph: Graph) -> None:
    router = await graph.replica(share=0.5)
    await phase(router, "running")
    graph.coordinator.rolled_back = "quality -10 points"
    await phase(router, "rolled_back")

    assert {(one.policy_id, one.arm) for one in await decisions(router)} == {(graph.ids[0], None)}
    view = router.describe().canary
    assert view is not None
    assert view.rolled_back == "quality -10 points"


async def test_a_rollback_outlives_replicas_and_the_coordinator(graph: Graph) -> None:
    router = await graph.replica(share=0.5)
    graph.coordinator.rolled_back = "quality -10 points"
    await phase(router, "rolled_back")
    await until(lambda: graph.last_good.rollback() is not None)
    graph.coordinator.rolled_back = None
    later = await graph.replica(share=0.5)

    assert {one.policy_id for one in await decisions(later)} == {graph.ids[0]}
    await phase(later, "rolled_back")
    await until(lambda: bool(graph.coordinator.known))
    (why,) = graph.coordinator.known.values()
    assert why.startswith("quality -10 points; at ")


async def test_a_rollback_ends_with_another_canary(graph: Graph) -> None:
    router = await graph.replica(share=0.5)
    graph.coordinator.rolled_back = "quality -10 points"
    await phase(router, "rolled_back")
    graph.coordinator.rolled_back = None
    await graph.deploy(router, share=0.25)
    await phase(router, "running")


async def test_a_canary_ends_at_its_time(graph: Graph) -> None:
    router = await graph.replica(until="2026-01-31")
    await phase(router, "over")

    assert {one.arm for one in await decisions(router)} == {None}
    canary = graph.trials.canary
    assert canary is not None
    assert canary.settings.until == datetime(2026, 1, 31, tzinfo=UTC)


async def test_the_gain_is_shown_as_keep_reads_it_and_for_one_canary(graph: Graph) -> None:
    arms = (Sums(n, n * mean, n * mean) for n, mean in ((200, 0.9), (400, 0.5)))
    graph.coordinator.sums = tuple(ArmSums(quality=sums) for sums in arms)
    router = await graph.replica(share=0.5)
    await phase(router, "running")

    states, (proof,), _ = samples(generate_latest(metrics.registry).decode())
    assert (states, proof.policy) == ({"running"}, graph.ids[1])
    assert (proof.gain, (proof.low + proof.high) / 2) == (pytest.approx(0.4), pytest.approx(0.4))
    await graph.deploy(router)
    assert samples(generate_latest(metrics.registry).decode())[:2] == (set(), [])


async def test_a_canary_that_cannot_be_loaded_is_rejected(graph: Graph, tmp_path: Path) -> None:
    router = await graph.replica()
    await router.reconfigure({"policy": str(graph.old), "canary": {"policy": str(tmp_path), "share": 0.5}})

    state = router.describe()
    assert state.error is not None
    assert state.canary is None
    assert {one.policy_id for one in await decisions(router)} == {graph.ids[0]}


async def test_a_shadow_logs_its_scores_of_each_request(graph: Graph, tmp_path: Path) -> None:
    router = await graph.replica()
    log = tmp_path / "decisions"
    await router.reconfigure({"policy": str(graph.old), "shadow": str(graph.new), "shadow_folder": str(log)})
    requests = [RouteRequest(SUM, request_id=f"req-{number}", unit=f"req-{number}") for number in range(40)]
    responses = await router.decide([*requests, RouteRequest(SUM)])
    await router.reconfigure({"policy": str(graph.old)})  # ends the shadow, with what is queued

    assert {one.decision.policy_id for one in responses if one.decision is not None} == {graph.ids[0]}
    records = [one for file in log_files(log) for one in read_records(file) if isinstance(one, ShadowRecord)]
    assert [one.request_id for one in records] == [f"req-{number}" for number in range(40)]
    assert {one.policy for one in records} == {graph.ids[1]}
    assert set(records[0].scores or ()) == set(Policy.load(graph.new).pool.names)
