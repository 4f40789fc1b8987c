"""Results of attempts to call experts."""

from collections.abc import Callable
from dataclasses import dataclass

from deployments.contracts.protocols import ResponseStream
from deployments.limits.admission import AdmissionQueue


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of one expert."""

    expert: str
    outcome: str
    """`answered`, or the kind of failure."""
    seconds: float
    began: bool = False
    """Whether a 2xx response had begun."""

    @property
    def may_have_completed(self) -> bool:
        """Whether the expert may have made completion tokens, though no usage of it is known."""
        return self.began or self.outcome in {"timeout", "cancelled"}


@dataclass(slots=True)
class OpenedResponse:
    """The beginning of an expert's 2xx response."""

    expert: str
    stream: ResponseStream
    attempts: tuple[Attempt, ...]
    ttft_s: float
    slot: AdmissionQueue
    """Held until the response ends; the caller must `release` it, with `slots_held`."""
    broke: Callable[[], None] = lambda: None
    """Reports to the expert's circuit breaker that the response broke off after its first byte."""
    slots_held: int = 1
