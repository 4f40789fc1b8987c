"""Reports of an ingress replica: whole sums, bounded, again after a failure."""

from collections.abc import Mapping

import pytest

from deployments.canary.arm_reports import MOST_CANARIES, ArmReports
from deployments.canary.messages import CanaryCall, CanaryStanding
from router.core import Arm


class FakeCoordinator:
    """Remembers the calls; fails where an error is set."""

    def __init__(self) -> None:
        self.calls: list[CanaryCall] = []
        self.error: Exception | None = None

    async def sync(self, call: CanaryCall, timeout_s: float) -> Mapping[str, CanaryStanding]:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        return {}


@pytest.fixture
def coordinator() -> FakeCoordinator:
    return FakeCoordinator()


@pytest.fixture
async def reports(coordinator: FakeCoordinator) -> ArmReports:
    names = iter(["replica", "another"])
    return ArmReports(lambda: next(names), coordinator)


async def test_each_report_has_all_sums_so_far(reports: ArmReports, coordinator: FakeCoordinator) -> None:
    reports.measured(Arm("c", "canary"), "quality", 1.0)
    await reports.report()
    reports.measured(Arm("c", "canary"), "quality", 0.5)
    reports.measured(Arm("c", "control"), "success", 1.0)
    await reports.report()

    first, second = (call.measured["c"] for call in coordinator.calls)
    assert (first["canary"].quality.n, first["canary"].quality.total) == (1, 1.0)
    assert (second["canary"].quality.n, second["canary"].quality.total) == (2, 1.5)
    assert second["control"].success.n == 1
    assert {call.replica for call in coordinator.calls} == {"replica"}


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionError("away"), RuntimeError("unforeseen")])
async def test_a_failed_report_loses_no_value(
    reports: ArmReports, coordinator: FakeCoordinator, error: Exception
) -> None:
    reports.measured(Arm("c", "canary"), "quality", 1.0)
    coordinator.error = error
    await reports.report()
    coordinator.error = None
    await reports.report()

    assert coordinator.calls[-1].measured["c"]["canary"].quality.n == 1


async def test_only_the_latest_canaries_are_kept(reports: ArmReports, coordinator: FakeCoordinator) -> None:
    for number in range(MOST_CANARIES + 3):
        reports.measured(Arm(f"c{number}", "canary"), "quality", 1.0)
    await reports.report()

    assert list(coordinator.calls[0].measured) == [f"c{number}" for number in range(3, MOST_CANARIES + 3)]
