"""Snapshots of the whole application for Board: its metrics, gathered once a second at most.

However many boards are open, an ingress replica gathers once and sends the same bytes to all of
them. Knows nothing of HTTP; the browser computes rates and percentiles.
"""

import asyncio
import gzip
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from deployments.dashboard.history import FINE_S, History
from deployments.upstream.eligibility import readiness
from deployments.upstream.registry import ExpertRegistry

logger = logging.getLogger("ray.serve")

FRESH_S = 1.0
"""A snapshot younger than this is sent again."""
SENT_FAMILIES = tuple(
    f"to_router_{name}".encode()
    for name in (
        "requests", "decisions", "attempts", "static_rankings", "stage_seconds", "tokens", "cost_usd",
        "cost_ratio", "baseline_usd", "in_flight", "queued", "refused", "breaker_state",
        "expert_replicas", "expert_in_flight", "policy_info", "unscraped_replicas", "plans",
        "expected_time_ratio", "router_unfamiliar", "router_batch_size_sum",
        "canary", "arm_requests", "arm_quality",
    )
)  # fmt: skip
"""The metric families that Board gets; metrics by key stay in the operator's /metrics."""
SENT_STAGES = (b'stage="first_byte"', b'stage="whole"', b'stage="route"')
KEPT_FAMILIES = tuple(
    f"to_router_{name}".encode()
    for name in (
        "requests_total", "decisions_total", "attempts_total", "stage_seconds", "cost_usd_total",
        "baseline_usd_total", "refused_total", "plans", "expected_time_ratio", "router_unfamiliar_total",
        "router_batch_size_sum", "arm_requests_total", "arm_quality",
    )
)  # fmt: skip
"""The counters that the history keeps."""
KEPT_STAGES = SENT_STAGES[:2]


@dataclass(frozen=True, slots=True)
class Packed:
    """JSON, plain and compressed."""

    plain: bytes
    zipped: bytes


@dataclass(slots=True)
class _Gathered:
    """The application at one time; packed when a board wants it."""

    at: float
    view: dict[str, object]
    lines: list[bytes]
    packed: Packed | None = None


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
        self._last: tuple[float, _Gathered] | None = None
        self._history = History(_is_kept)

    async def snapshot(self) -> Packed:
        """The current snapshot, gathered again when it is older than `FRESH_S`."""
        async with self._lock:
            last = await self._current()
            if last.packed is None:
                last.packed = await asyncio.to_thread(_packed, last, None)
            return last.packed

    async def with_history(self) -> Packed:
        """The same with the history until then, for a board that was just opened."""
        async with self._lock:
            last = await self._current()
            return await asyncio.to_thread(_packed, last, self._history)

    async def keep_history(self, wait: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Gather every `FINE_S` seconds, for as long as this replica runs."""
        while True:
            try:
                async with self._lock:
                    await self._current()
            except Exception:
                logger.exception("the metrics for the history of the board could not be gathered")
            await wait(FINE_S)

    async def _current(self) -> _Gathered:
        """The last state, gathered again when it is too old; the lock is held."""
        if self._last is None or self._clock() - self._last[0] >= FRESH_S:
            text = await self._gather()
            at = self._now()
            lines = await asyncio.to_thread(self._noted, text, at)
            self._last = (self._clock(), _Gathered(at, self._view(), lines))
        return self._last[1]

    def _noted(self, text: bytes, at: float) -> list[bytes]:
        lines = [line for line in text.splitlines() if _is_sent(line)]
        self._history.add(lines, at)
        return lines

    def _view(self) -> dict[str, object]:
        """State of router and experts, which the metrics do not hold."""
        parts = readiness(self._registry)
        policy = self._registry.policy
        return {
            "policy_id": None if policy is None else policy.policy_id,
            "best_single": None if policy is None else policy.best_single,
            "plans": [] if policy is None else list(policy.plans),
            "router": {"ready": parts["router"].ready, "why": parts["router"].why},
            "experts": {
                name: {
                    "description": expert.target.description,
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


def _packed(gathered: _Gathered, history: History | None) -> Packed:
    metrics = b"\n".join(gathered.lines).decode("utf-8", "replace")
    content = {"at": gathered.at, **gathered.view, "metrics": metrics}
    if history is not None:
        content["history"] = history.view()
    plain = orjson.dumps(content)
    return Packed(plain, gzip.compress(plain, 1))


def _is_sent(line: bytes) -> bool:
    if not line.startswith(SENT_FAMILIES):
        return False
    return not line.startswith(b"to_router_stage_seconds") or any(stage in line for stage in SENT_STAGES)


def _is_kept(line: bytes) -> bool:
    if not line.startswith(KEPT_FAMILIES):
        return False
    return not line.startswith(b"to_router_stage_seconds") or any(stage in line for stage in KEPT_STAGES)
