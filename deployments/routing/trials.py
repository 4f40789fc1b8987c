"""The policies beside the one in effect: the canary, which serves a share, and the shadow, which only scores.

Loads both, replaces both with a configuration, and ends them. Imports no Ray.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from deployments.canary.messages import CanaryTransport
from deployments.config import LogSettings, RouterArgs, RouterConfig
from deployments.contracts.messages import CanaryView
from deployments.last_good import LastGood
from deployments.observability import metrics
from deployments.observability.decision_log import SHADOW, DecisionLog
from deployments.routing.canary import POLL_S, Canary, set_gauge, watch
from deployments.routing.served_policy import ServedPolicy, load
from deployments.routing.shadow import Shadow
from router.core import Decision, RouteRequest

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a configuration names beside its policy."""

    canary: Canary | None = None
    shadow: ServedPolicy | None = None
    shadow_folder: str = ""


class Trials:
    """Canary and shadow of one router replica.

    Args:
        args: shape of the router deployment.
        last_good: keeps rollbacks.
        transport: makes the connection to the coordinator.
        replica: returns the name of this replica.
        poll_s: seconds between two looks at the coordinator.
    """

    def __init__(
        self,
        args: RouterArgs,
        last_good: LastGood,
        transport: Callable[[], CanaryTransport],
        replica: Callable[[], str],
        poll_s: float = POLL_S,
    ) -> None:
        self._args, self._last_good = args, last_good
        self._transport, self._replica, self._poll_s = transport, replica, poll_s
        self.canary: Canary | None = None
        """The configured one, in whatever state."""
        self._shadow: Shadow | None = None
        self._log: DecisionLog | None = None
        self._watch: asyncio.Task[None] | None = None
        self._connection: CanaryTransport | None = None

    def load(self, config: RouterConfig, in_effect: ServedPolicy) -> Loaded:
        """Load what a configuration names; blocks.

        Raises:
            PoolError: a policy does not cover the configured experts, or needs another encoder.
            RouterError: a folder holds no valid policy.
            OSError: a folder cannot be read.
        """
        shadow = None
        if config.shadow is not None:
            # Without the policy in effect: no other thread may use its encoder.
            shadow = load(config.model_copy(update={"policy": config.shadow}), self._args, None)
        settings = config.canary
        if settings is None:
            return Loaded(None, shadow, config.shadow_folder)
        served = load(config.model_copy(update={"policy": settings.policy}), self._args, in_effect)
        # The decisions of both arms are load for the same experts.
        served = replace(served, in_transit=in_effect.in_transit)
        ids = in_effect.policy.policy_id, served.policy.policy_id
        canary = Canary(served, settings, settings.identity(*ids))
        saved = self._last_good.rollback()
        if saved is not None and saved.canary == canary.id:
            canary.rolled_back = f"{saved.why}; at {saved.at}"
        return Loaded(canary, shadow, config.shadow_folder)

    async def apply(self, loaded: Loaded) -> None:
        """Put what was loaded into effect, in place of what was before; a canary that stays goes on."""
        if self._watch is not None:
            self._watch.cancel()
        before, self.canary = self.canary, loaded.canary
        metrics.canary_gain.clear()  # of another canary
        set_gauge(None if loaded.canary is None else loaded.canary.phase)
        if loaded.canary is not None:
            if before is not None and before.id == loaded.canary.id:
                loaded.canary.confirmed_at = before.confirmed_at
            if self._connection is None:
                self._connection = self._transport()
            keep = partial(self._keep, loaded.canary)
            following = watch(loaded.canary, self._connection, keep, self._poll_s)
            self._watch = asyncio.create_task(following)
        await asyncio.to_thread(self.stop_shadow)
        if loaded.shadow is not None:
            self._log = DecisionLog(LogSettings(folder=loaded.shadow_folder), self._replica(), kinds=SHADOW)
            self._shadow = Shadow(loaded.shadow, self._log.write, time.time)
            self._log.start()
            self._shadow.start()

    def decide(self, in_effect: ServedPolicy, requests: Sequence[RouteRequest]) -> list[Decision]:
        """Decide a batch: by the policy in effect, or each request by that of its arm."""
        canary = self.canary
        if canary is None or canary.phase != "running":
            return in_effect.decide(requests)
        return canary.decide(in_effect, requests)

    @property
    def is_light(self) -> bool:
        """Whether the canary's decisions take a fraction of a millisecond too."""
        return self.canary is None or self.canary.served.is_light

    def score(self, requests: Sequence[RouteRequest]) -> None:
        """Queue decided requests for the shadow; never waits."""
        shadow = self._shadow  # a thread may end it meanwhile
        if shadow is not None:
            shadow.submit(requests)

    def view(self) -> CanaryView | None:
        """What the ingress knows of the canary."""
        return None if self.canary is None else self.canary.view()

    def stop_shadow(self) -> None:
        """End the shadow, with what is queued; blocks for seconds at most."""
        if self._shadow is not None:
            self._shadow.stop()
        if self._log is not None:
            self._log.stop()
        self._shadow = self._log = None

    async def _keep(self, canary: Canary, why: str) -> None:
        policy = canary.served.policy.policy_id
        await asyncio.to_thread(self._last_good.save_rollback, canary.id, policy, why)
