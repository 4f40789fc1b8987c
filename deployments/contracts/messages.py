"""What travels between the deployments, a class for each; `router.core` has the question and the decision.

Plain frozen values that every process can read: imports neither Ray nor vLLM.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.core import Preferences
from router.experts import Price


@dataclass(frozen=True, slots=True)
class NoPolicy:
    """A router replica's answer while it has no policy to decide with."""

    why: str


@dataclass(frozen=True, slots=True)
class PolicyView:
    """What the ingress knows of the policy in force."""

    policy_id: str
    experts: tuple[str, ...]
    static_ranking: tuple[str, ...]
    """Best first, for when no decision can be had."""
    context_windows: Mapping[str, int] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    folder: str = ""
    best_single: str | None = None
    """The expert that was best alone on the training data; `None` where the policy does not say."""
    preferences: Preferences | None = None
    """What a request without preferences gets."""


@dataclass(frozen=True, slots=True)
class RouterState:
    """What a router replica serves, and what it last refused."""

    policy: PolicyView | None
    error: str | None
    """Why the last `user_config` was refused; `None` when it is in force."""
