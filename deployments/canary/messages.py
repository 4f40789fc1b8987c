"""Messages between replicas and the coordinator of canaries.

Plain frozen values, pickled between processes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from router.core import ArmName
from router.learning.canary import NO_VALUES, ArmSums

Arms = Mapping[ArmName, ArmSums]


@dataclass(frozen=True, slots=True)
class CanaryCall:
    """One call of a replica.

    Sums are all that the replica ever measured, not what is new: a call may be lost, or made twice.
    """

    replica: str
    """A name that no other replica has or had."""
    measured: Mapping[str, Arms] = field(default_factory=dict)
    """Canary → this replica's own sums."""
    wanted: tuple[str, ...] = ()
    """Canaries whose state the replica needs."""
    rolled_back: Mapping[str, str] = field(default_factory=dict)
    """Canaries that the replica knows to be rolled back → the reason."""


@dataclass(frozen=True, slots=True)
class CanaryStanding:
    """One canary, by what all replicas reported."""

    canary: ArmSums = NO_VALUES
    control: ArmSums = NO_VALUES
    rolled_back: str | None = None
    """The reason; `None` while it is not rolled back."""


class CanaryTransport(Protocol):
    """The connection to the coordinator."""

    async def sync(self, call: CanaryCall, timeout_s: float) -> Mapping[str, CanaryStanding]:
        """Make one call; returns the wanted canaries.

        Raises:
            TimeoutError: no response in time.
            ConnectionError: the coordinator does not respond.
        """
        ...
