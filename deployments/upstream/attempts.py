"""Results of attempts to call experts."""

from collections.abc import Callable, Mapping
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
    usage: tuple[int, int] | None = None
    """(prompt, completion) tokens of a response that was read to its end and not relayed."""
    most_seen: int | None = None
    """The most completion tokens that were seen of a response which was aborted."""
    samples: int = 1
    """Completions that were requested in place of one: a vote's."""

    @property
    def may_have_completed(self) -> bool:
        """Whether the expert may have made completion tokens, though no usage of it is known."""
        return self.began or self.outcome in {"timeout", "cancelled"}


@dataclass(frozen=True, slots=True)
class PlanResult:
    """What became of a plan."""

    name: str
    accepted: bool | None
    """`None` where it was not carried out."""
    why: str
    """`accepted`, `rejected`, `overrun` of the hold, `else_failed`; `full` where it was not carried out."""
    p_right: float | None = None
    """Probability that the answer at hand is right; `None` where it was not judged."""
    p_accept: float | None = None
    """Probability of acceptance, as predicted before."""
    signals: Mapping[str, float | None] | None = None
    """What the answer at hand was judged by."""
    unreturned_tokens: int = 0
    """Completion tokens of a vote's other samples."""


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
    read_to_end: Callable[[float], None] = lambda _: None
    """Reports the completion tokens of a stream that came to its end."""
    plan: PlanResult | None = None
    """What became of the plan, where the decision chose one."""

    @property
    def plan_name(self) -> str | None:
        """The plan that was carried out; `None` for none."""
        return None if self.plan is None or self.plan.accepted is None else self.plan.name
