"""Results of attempts to call experts."""

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


@dataclass(slots=True)
class OpenedResponse:
    """The beginning of an expert's 2xx response."""

    expert: str
    stream: ResponseStream
    attempts: tuple[Attempt, ...]
    ttft_s: float
    slot: AdmissionQueue
    """Held until the response ends; the caller must `release` it."""
