"""State of all canaries, from what every ingress replica measured; a worse one is rolled back.

Pure state machine with a clock passed in; `ray_coordinator` makes it an actor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.canary.messages import Arms, CanaryCall, CanaryStanding
from router.core import ArmName
from router.learning.canary import ArmSums, standing

MOST_CANARIES = 32
"""Canaries that are remembered; the one without a call for longest leaves first."""
MOST_REPLICAS = 1000
"""Replicas of one canary that are kept apart; of more, those silent for longest are one sum."""
GONE = ""
"""The name under which the sums of those are kept."""
VERSION = 1


@dataclass(slots=True)
class _Canary:
    seen_at: float
    replicas: dict[str, dict[ArmName, ArmSums]] = field(default_factory=dict)
    rolled_back: str | None = None

    def total(self, arm: ArmName) -> ArmSums:
        sums = ArmSums()
        for arms in self.replicas.values():
            sums += arms.get(arm, ArmSums())
        return sums


class Coordinator:
    """All canaries.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._canaries: dict[str, _Canary] = {}

    def sync(self, call: CanaryCall) -> dict[str, CanaryStanding]:
        """Take over what a replica measured, then return the canaries that it wants to know."""
        for canary, reason in call.rolled_back.items():
            found = self._canary(canary)
            found.rolled_back = found.rolled_back or reason
        for canary, arms in call.measured.items():
            self._measured(self._canary(canary), call.replica, arms)
        return {canary: self._standing(self._canary(canary)) for canary in call.wanted}

    @property
    def rolled_back(self) -> frozenset[str]:
        """The canaries that are rolled back."""
        return frozenset(name for name, one in self._canaries.items() if one.rolled_back is not None)

    def snapshot(self) -> dict[str, Any]:
        """All canaries as JSON values."""
        return {
            "version": VERSION,
            "canaries": {
                name: {
                    "seen_at": one.seen_at,
                    "rolled_back": one.rolled_back,
                    "replicas": {
                        replica: {arm: sums.as_json() for arm, sums in arms.items()}
                        for replica, arms in one.replicas.items()
                    },
                }
                for name, one in self._canaries.items()
            },
        }

    def restore(self, snapshot: Any) -> None:
        """Take over a snapshot.

        Raises:
            ValueError: it has another version, or is damaged; nothing of it is taken over.
        """
        if not isinstance(snapshot, Mapping) or snapshot.get("version") != VERSION:
            raise ValueError(f"snapshot of canaries has not version {VERSION}")
        try:
            restored = {
                name: _Canary(
                    float(one["seen_at"]),
                    {
                        replica: {arm: ArmSums.from_json(sums) for arm, sums in arms.items()}
                        for replica, arms in one["replicas"].items()
                    },
                    one["rolled_back"],
                )
                for name, one in snapshot["canaries"].items()
            }
        except (AttributeError, LookupError, TypeError, OverflowError) as error:
            raise ValueError(f"snapshot of canaries is damaged: {error!r}") from error
        self._canaries = restored

    def _canary(self, name: str) -> _Canary:
        now = self._clock()
        found = self._canaries.setdefault(name, _Canary(now))
        found.seen_at = now
        if len(self._canaries) > MOST_CANARIES:
            del self._canaries[min(self._canaries, key=lambda one: self._canaries[one].seen_at)]
        return found

    def _measured(self, canary: _Canary, replica: str, arms: Arms) -> None:
        # Moved to the end: the first one is silent for longest.
        known = canary.replicas[replica] = canary.replicas.pop(replica, {})
        for arm, sums in arms.items():
            # A call that arrives after a later one has fewer values.
            if sums.values >= known.get(arm, ArmSums()).values:
                known[arm] = sums
        if len(canary.replicas) > MOST_REPLICAS:
            self._merge_first(canary)
        if canary.rolled_back is None:
            found = standing(canary.total("canary"), canary.total("control"))
            if found.verdict == "worse":
                canary.rolled_back = found.sentence

    def _merge_first(self, canary: _Canary) -> None:
        gone = canary.replicas.pop(GONE, {})
        first = canary.replicas.pop(next(iter(canary.replicas)))
        merged = {arm: gone.get(arm, ArmSums()) + first.get(arm, ArmSums()) for arm in {*gone, *first}}
        canary.replicas = {GONE: merged, **canary.replicas}

    def _standing(self, canary: _Canary) -> CanaryStanding:
        return CanaryStanding(canary.total("canary"), canary.total("control"), canary.rolled_back)
