"""The canary of a router replica: when it serves, which requests, and what ends it.

It serves only while the coordinator responds, which alone can end a worse one. Imports no Ray.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from deployments.canary.messages import CanaryCall, CanaryStanding, CanaryTransport
from deployments.config import CanarySettings
from deployments.contracts.messages import CanaryView
from deployments.observability import metrics
from deployments.routing.served_policy import ServedPolicy
from router.core import Arm, Decision, RouteRequest
from router.learning.canary import arm_name, standing
from router.learning.sequential import LEAST_VALUES

logger = logging.getLogger("ray.serve")

POLL_S = 1.0
CALL_TIMEOUT_S = 2.0
TRUSTED_S = 10.0
"""A canary without a response of the coordinator for this long serves no request."""

Phase = Literal["waiting", "running", "rolled_back", "over"]
PHASES: tuple[Phase, ...] = ("waiting", "running", "rolled_back", "over")


@dataclass
class Canary:
    """One canary, as this replica knows it."""

    served: ServedPolicy
    """The canary's policy."""
    settings: CanarySettings
    id: str
    rolled_back: str | None = None
    """The reason; `None` while it is not rolled back."""
    confirmed_at: float | None = None
    """When the coordinator responded last, in monotonic seconds."""
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    _arms: dict[str, Arm] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._arms = {"canary": Arm(self.id, "canary"), "control": Arm(self.id, "control")}

    @property
    def phase(self) -> Phase:
        """Whether it serves now, and if not, why."""
        if self.rolled_back is not None:
            return "rolled_back"
        if self.settings.until is not None and self.now() >= self.settings.until.timestamp():
            return "over"
        if self.confirmed_at is None or self.clock() - self.confirmed_at > TRUSTED_S:
            return "waiting"
        return "running"

    def arm(self, unit: str) -> Arm:
        """The arm of a conversation, or of a request without one."""
        return self._arms[arm_name(self.id, unit, self.settings.share)]

    def decide(self, in_effect: ServedPolicy, requests: Sequence[RouteRequest]) -> list[Decision]:
        """Decide a batch, each request by the policy of its arm; decisions in their order."""
        arms = [None if request.unit is None else self.arm(request.unit) for request in requests]
        decisions: list[Decision] = [None] * len(requests)  # type: ignore[list-item]
        for policy, name in ((in_effect, "control"), (self.served, "canary")):
            rows = [row for row, arm in enumerate(arms) if ("control" if arm is None else arm.name) == name]
            if rows:
                found = policy.decide([requests[row] for row in rows])
                for row, decision in zip(rows, found, strict=True):
                    decisions[row] = replace(decision, arm=arms[row])
        return decisions

    def view(self) -> CanaryView:
        """What the ingress knows of it."""
        return CanaryView(self.served.view(), self.phase, self.rolled_back)


async def watch(
    canary: Canary, transport: CanaryTransport, keep: Callable[[str], Awaitable[None]], poll_s: float
) -> None:
    """Follow the coordinator until the canary is rolled back or over.

    Args:
        canary: the canary.
        transport: the connection to the coordinator.
        keep: stores a rollback, so that it outlives this replica.
        poll_s: seconds between two looks.
    """
    away, responded = False, False
    while not responded or canary.phase in {"waiting", "running"}:
        known = {} if canary.rolled_back is None else {canary.id: canary.rolled_back}
        try:
            found = await transport.sync(CanaryCall("", {}, (canary.id,), known), CALL_TIMEOUT_S)
            reported = found[canary.id]
        except (TimeoutError, ConnectionError, LookupError) as error:
            if not away:
                logger.warning("canary %s: the coordinator does not respond (%r)", canary.id, error)
            away = True
        else:
            away, responded = False, True
            canary.confirmed_at = canary.clock()
            set_gain(canary, reported)
            if reported.rolled_back is not None and canary.rolled_back is None:
                canary.rolled_back = reported.rolled_back
                logger.error("canary %s is rolled back: %s", canary.id, reported.rolled_back)
                await keep(reported.rolled_back)
        set_gauge(canary.phase)
        await asyncio.sleep(poll_s)


def set_gain(canary: Canary, reported: CanaryStanding) -> None:
    """Show in the metrics how much better the canary is than its control, once that can be judged."""
    found = standing(reported.canary, reported.control).quality
    if min(found.canary.n, found.control.n) < LEAST_VALUES:
        return
    for bound, value in (("estimate", found.difference), ("lower", found.lower), ("upper", found.upper)):
        metrics.canary_gain.labels(canary.served.policy.policy_id, bound).set(
            math.nan if value is None else value
        )


def set_gauge(phase: Phase | None) -> None:
    """Show the phase in the metrics; `None` without a canary."""
    for one in PHASES:
        metrics.canary.labels(one).set(one == phase)
