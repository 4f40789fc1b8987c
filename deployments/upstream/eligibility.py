"""What an ingress replica knows of the graph: the policy in force and every expert's state.

Pure state and rules over it: who refreshes it, and how, stands in `ingress`. Keeps the last
good view of the router, so that a router that is away changes nothing but the reason header.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deployments.config import IngressConfig
from deployments.contracts.messages import PolicyView, RouterState
from deployments.contracts.requests import InferenceRequest

CONTEXT = "context window"
"""How a reason begins when an expert is dropped for the request's length alone."""

NOT_HERE = "not configured at the ingress"
"""The reason for an expert that only the policy knows."""


@dataclass(slots=True)
class ExpertState:
    """What is known of one expert right now."""

    running: int | None = None
    """Replicas that run; `None` before anything is known, or for an expert elsewhere."""
    starting: int = 0
    """Replicas on their way up."""
    stopping: int = 0
    """Replicas on their way down."""
    asleep: bool = False
    """Scaled to zero on purpose: a request would wake it."""
    why_not_ready: str | None = "not seen yet"
    phase: str = ""
    """What Serve says of its application."""
    context_window: int | None = None
    """What the expert itself said."""
    window_is_stale: bool = False
    """Whether another engine may answer since it did."""


@dataclass(frozen=True, slots=True)
class Part:
    """One line of `/ready`."""

    ready: bool
    why: str = ""


class Directory:
    """The ingress' view of router and experts."""

    def __init__(self, config: IngressConfig) -> None:
        self.config = config
        self.policy: PolicyView | None = None
        self.router_error: str | None = "the router has not answered yet"
        self.experts: dict[str, ExpertState] = {name: ExpertState() for name in config.experts}

    def reconfigure(self, config: IngressConfig) -> None:
        """Take over a new configuration; what is known of experts that stay is kept."""
        self.config = config
        self.experts = {name: self.experts.get(name, ExpertState()) for name in config.experts}

    def saw_router(self, state: RouterState) -> None:
        """A router replica told what it serves."""
        if state.policy is not None:
            self.policy = state.policy
        self.router_error = state.error

    def lost_router(self, why: str) -> None:
        """The router could not be asked; its last policy view stays."""
        self.router_error = why

    def static_ranking(self) -> tuple[str, ...]:
        """Configured experts, best first, for when no decision can be had."""
        known = () if self.policy is None else self.policy.static_ranking
        names = [name for name in known if name in self.config.experts]
        return (*names, *(name for name in self.config.experts if name not in names))

    def context_window(self, name: str) -> int | None:
        """Tokens of prompt and answer together that an expert takes.

        What the configuration says, else the expert itself, else the policy.
        """
        target = self.config.experts.get(name)
        state = self.experts.get(name)
        if target is not None and target.context_window is not None:
            return target.context_window
        if state is not None and state.context_window is not None:
            return state.context_window
        return None if self.policy is None else self.policy.context_windows.get(name)

    def not_up(self, name: str) -> str | None:
        """Why no replica of an expert runs although one should; `None` where one runs or would be woken."""
        state = self.experts.get(name)
        if state is None or state.running != 0 or state.asleep:
            return None
        return state.why_not_ready

    def exclusions(
        self, ask: InferenceRequest, unavailable: Mapping[str, str], allowed: Iterable[str] | None
    ) -> dict[str, str]:
        """Expert → why it may not answer this request; experts left out may.

        Args:
            unavailable: expert → why it cannot answer now (breaker, cold).
            allowed: the caller's key may use only these; `None` for all.
        """
        permitted = None if allowed is None else set(allowed)
        reasons: dict[str, str] = {}
        for name, target in self.config.experts.items():
            if ask.routing.experts is not None and name not in ask.routing.experts:
                reasons[name] = "not in routing.experts"
            elif name in ask.routing.exclude:
                reasons[name] = "in routing.exclude"
            elif permitted is not None and name not in permitted:
                reasons[name] = "not allowed for this key"
            elif missing := sorted(ask.needs - target.capabilities):
                reasons[name] = f"cannot do: {', '.join(missing)}"
            elif (window := self.context_window(name)) and (length := _length(ask)) > window:
                reasons[name] = f"{CONTEXT} of {window} tokens is too small for about {length}"
            elif name in unavailable:
                reasons[name] = unavailable[name]
        for name in () if self.policy is None else self.policy.experts:
            if name not in self.config.experts:
                reasons[name] = NOT_HERE
        return reasons

    def parts(self) -> dict[str, Part]:
        """Readiness of the router and of every expert, for `/ready`."""
        parts = {"router": Part(self.router_error is None, self.router_error or "")}
        covered = None if self.policy is None else self.policy.experts
        if self.router_error is None and covered is not None:
            missing = [name for name in self.config.experts if name not in covered]
            if missing:
                told = f"the policy in force does not cover the experts {', '.join(missing)}"
                parts["router"] = Part(False, told)
        for name, state in self.experts.items():
            parts[name] = Part(
                state.why_not_ready is None, state.why_not_ready or ("asleep" if state.asleep else "")
            )
        return parts


def _length(ask: InferenceRequest) -> int:
    return ask.longest_tokens + (ask.max_tokens or 0)
