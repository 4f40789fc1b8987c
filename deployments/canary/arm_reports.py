"""An ingress replica's measurements of a canary's arms, and its reports of them.

Sums are reported as a whole, so a lost call costs nothing but time. Knows no Ray: the transport is an
argument.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from deployments.canary.messages import Arms, CanaryCall, CanaryTransport
from router.core import Arm, ArmName
from router.learning.canary import ArmSums

logger = logging.getLogger("ray.serve")

REPORT_S = 1.0
AGAIN_S = 10.0
"""Sums without a change are reported after so long: the coordinator may have lost them."""
CALL_TIMEOUT_S = 2.0
MOST_CANARIES = 4
"""Canaries whose sums a replica keeps: the latest ones."""


class ArmSink(Protocol):
    """Takes what is measured of requests while a canary runs; never blocks."""

    def measured(self, arm: Arm, measure: str, value: float) -> None:
        """Note a value of one of the measures of `ArmSums`."""
        ...


class NoArms:
    """A sink that drops everything."""

    def measured(self, arm: Arm, measure: str, value: float) -> None:
        """Drop it."""


class ArmReports:
    """Sums of this replica.

    Args:
        replica: returns a name that no other replica has or had, once one is needed.
        transport: the connection to the coordinator.
    """

    def __init__(self, replica: Callable[[], str], transport: CanaryTransport) -> None:
        self._new_name, self._transport = replica, transport
        self._name: str | None = None
        self._sums: dict[str, dict[ArmName, ArmSums]] = {}
        self._changed = False
        self._silent_s = 0.0
        self._away = False
        self._task: asyncio.Task[None] | None = None

    def measured(self, arm: Arm, measure: str, value: float) -> None:
        """Note a value; the first one begins the reports."""
        arms = self._sums.setdefault(arm.canary, {})
        arms[arm.name] = arms.get(arm.name, ArmSums()).plus(measure, value)
        self._changed = True
        if len(self._sums) > MOST_CANARIES:
            del self._sums[next(iter(self._sums))]
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def report(self) -> None:
        """Report all sums once; a failure is logged, and the next report has them too."""
        self._changed = False
        measured: dict[str, Arms] = {canary: dict(arms) for canary, arms in self._sums.items()}
        if self._name is None:  # one for all reports: sums under two names would count twice
            self._name = self._new_name()
        try:
            await self._transport.sync(CanaryCall(self._name, measured), CALL_TIMEOUT_S)
        except (TimeoutError, ConnectionError) as error:
            self._changed = True
            if not self._away:
                logger.warning("the coordinator of canaries does not respond (%r)", error)
            self._away = True
        except Exception:
            logger.exception("unforeseen error in a report to the coordinator of canaries")
        else:
            self._away = False

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            self._silent_s += REPORT_S
            if self._changed or self._silent_s >= AGAIN_S:
                self._silent_s = 0.0
                await self.report()
