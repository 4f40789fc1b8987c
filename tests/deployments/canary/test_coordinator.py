"""The coordinator: sums of replicas that come late, twice, or never again, and what they lead to."""

import json

import pytest

from deployments.canary.coordinator import MOST_CANARIES, MOST_REPLICAS, Coordinator
from deployments.canary.messages import Arms, CanaryCall
from router.learning.canary import ArmSums
from router.learning.sequential import Sums
from tests.deployments.fakes import Clock


def arms(canary: float, control: float = 1.0, n: int = 200) -> Arms:
    return {
        "canary": ArmSums(Sums(n, n * canary, n * canary)),
        "control": ArmSums(Sums(n, n * control, n * control)),
    }


def report(replica: str, measured: Arms, canary: str = "c") -> CanaryCall:
    return CanaryCall(replica, {canary: measured}, (canary,))


@pytest.fixture
def coordinator() -> Coordinator:
    return Coordinator(Clock())


def test_sums_of_replicas_add_up_and_a_repeated_call_counts_once(coordinator: Coordinator) -> None:
    coordinator.sync(report("a", arms(1.0, n=10)))
    coordinator.sync(report("a", arms(1.0, n=10)))
    found = coordinator.sync(report("b", arms(1.0, n=5)))["c"]

    assert (found.canary.quality.n, found.control.quality.n) == (15, 15)


def test_a_call_that_arrives_after_a_later_one_changes_nothing(coordinator: Coordinator) -> None:
    coordinator.sync(report("a", arms(1.0, n=10)))
    found = coordinator.sync(report("a", arms(1.0, n=4)))["c"]

    assert found.canary.quality.n == 10


def test_a_worse_canary_is_rolled_back_by_what_two_replicas_measured(coordinator: Coordinator) -> None:
    first = coordinator.sync(report("a", arms(0.0, n=30)))["c"]
    second = coordinator.sync(report("b", arms(0.0, n=30)))["c"]

    assert first.rolled_back is None
    assert second.rolled_back is not None
    assert second.rolled_back.startswith("quality -100.0 points")


def test_a_rollback_stays_when_later_values_are_good(coordinator: Coordinator) -> None:
    why = coordinator.sync(report("a", arms(0.0)))["c"].rolled_back
    found = coordinator.sync(report("b", arms(1.0, n=5000)))["c"]

    assert found.rolled_back == why
    assert coordinator.rolled_back == {"c"}


def test_a_rollback_that_a_replica_kept_is_taken_over(coordinator: Coordinator) -> None:
    found = coordinator.sync(CanaryCall("", {}, ("c",), {"c": "as saved"}))["c"]

    assert found.rolled_back == "as saved"


def test_another_canary_begins_with_no_values(coordinator: Coordinator) -> None:
    coordinator.sync(report("a", arms(0.0)))

    assert coordinator.sync(CanaryCall("", {}, ("d",)))["d"].rolled_back is None


def test_a_snapshot_restores_all_of_it() -> None:
    first, second = Coordinator(Clock()), Coordinator(Clock())
    before = first.sync(report("a", arms(0.0)))
    second.restore(json.loads(json.dumps(first.snapshot())))

    assert second.sync(CanaryCall("", {}, ("c",))) == before


@pytest.mark.parametrize(
    "broken", [None, [], {}, {"version": 2}, {"version": 1}, {"version": 1, "canaries": {"c": {}}}]
)
def test_a_broken_snapshot_is_an_error_and_changes_nothing(coordinator: Coordinator, broken: object) -> None:
    coordinator.sync(report("a", arms(0.0)))
    with pytest.raises(ValueError, match="snapshot"):
        coordinator.restore(broken)

    assert coordinator.rolled_back == {"c"}


def test_canaries_and_replicas_are_bounded_and_no_value_is_lost(coordinator: Coordinator) -> None:
    for number in range(MOST_REPLICAS + 5):
        found = coordinator.sync(report(f"replica {number}", arms(1.0, n=1)))
    for number in range(2 * MOST_CANARIES):
        coordinator.sync(CanaryCall("", {}, (f"other {number}",)))

    assert found["c"].canary.quality.n == MOST_REPLICAS + 5
    assert len(coordinator.snapshot()["canaries"]) == MOST_CANARIES
