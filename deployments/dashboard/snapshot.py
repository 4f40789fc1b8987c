"""Snapshots of the whole application for Board: its metrics, gathered once a second at most.

However many boards are open, an ingress replica gathers once and sends the same bytes to all of
them. Knows nothing of HTTP; the browser computes rates and percentiles.
"""

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from deployments.upstream.eligibility import readiness
from deployments.upstream.registry import ExpertRegistry

FRESH_S = 1.0
"""A snapshot younger than this is sent again."""
SENT_FAMILIES = tuple(
    f"to_router_{name}".encode()
    for name in (
        "requests", "decisions", "attempts", "static_rankings", "stage_seconds", "tokens", "cost_usd",
        "cost_ratio", "baseline_usd", "in_flight", "queued", "refused", "breaker_state",
        "expert_replicas", "expert_in_flight", "policy_info", "unscraped_replicas",
    )
)  # fmt: skip
"""The metric families that Board gets; metrics by key stay in the operator's /metrics."""
SENT_STAGES = (b'stage="first_byte"', b'stage="whole"', b'stage="route"')


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The application at one time, as JSON."""

    plain: bytes
    zipped: bytes


class MetricsSnapshots:
    """The source of snapshots for all boards of one ingress replica.

    Args:
        registry: the state of router and experts.
        gather: returns the metrics of the whole application, in the text format of Prometheus.
        clock: monotonic seconds, for the age of a snapshot.
        now: seconds since 1970; part of the snapshot, so that the browser knows the interval of a rate.
    """

    def __init__(
        self,
        registry: ExpertRegistry,
        gather: Callable[[], Awaitable[bytes]],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._gather = gather
        self._clock, self._now = clock, now
        self._lock = asyncio.Lock()
        self._last: tuple[float, Snapshot] | None = None

    async def snapshot(self) -> Snapshot:
        """The current snapshot, gathered again when it is older than `FRESH_S`."""
        async with self._lock:
            if self._last is None or self._clock() - self._last[0] >= FRESH_S:
                text = await self._gather()
                gathered_at = self._now()
                snapshot = await asyncio.to_thread(_packed, text, gathered_at, self._view())
                self._last = (self._clock(), snapshot)
            return self._last[1]

    def _view(self) -> dict[str, object]:
        """State of router and experts, which the metrics do not hold."""
        parts = readiness(self._registry)
        policy = self._registry.policy
        return {
            "policy_id": None if policy is None else policy.policy_id,
            "best_single": None if policy is None else policy.best_single,
            "router": {"ready": parts["router"].ready, "why": parts["router"].why},
            "experts": {
                name: {
                    "ready": parts[name].ready,
                    "why": parts[name].why,
                    "running": expert.state.running,
                    "starting": expert.state.starting,
                    "stopping": expert.state.stopping,
                    "scaled_to_zero": expert.state.scaled_to_zero,
                }
                for name, expert in self._registry.experts.items()
            },
        }


def _packed(text: bytes, gathered_at: float, view: dict[str, object]) -> Snapshot:
    metrics = b"\n".join(line for line in text.splitlines() if _is_sent(line)).decode("utf-8", "replace")
    plain = orjson.dumps({"at": gathered_at, **view, "metrics": metrics})
    return Snapshot(plain, gzip.compress(plain, 1))


def _is_sent(line: bytes) -> bool:
    if not line.startswith(SENT_FAMILIES):
        return False
    return not line.startswith(b"to_router_stage_seconds") or any(stage in line for stage in SENT_STAGES)
