"""Gauges of an ingress replica, set to the current values whenever its metrics are read."""

import asyncio

from deployments.limits.admission import AdmissionQueue
from deployments.observability import metrics
from deployments.upstream.eligibility import readiness
from deployments.upstream.registry import ExpertRegistry

BREAKER_VALUES = {"closed": 0.0, "half_open": 0.5, "open": 1.0}


def set_gauges(
    registry: ExpertRegistry, queue: AdmissionQueue, *, config_rejected: bool, ledger_is_away: bool
) -> None:
    """Set all gauges; experts and policies that are gone lose theirs."""
    metrics.tasks.set(len(asyncio.all_tasks()))
    limits = registry.config.limits
    metrics.in_flight.set(queue.held)
    metrics.queued.set(queue.queued)
    metrics.limit.labels("in_flight").set(limits.max_in_flight)
    metrics.limit.labels("queued").set(limits.max_queued)
    metrics.config_refused.labels("Ingress").set(config_rejected)
    metrics.ledger_away.set(ledger_is_away)
    for gauge in (
        metrics.ready,
        metrics.expert_in_flight,
        metrics.breaker_state,
        metrics.expert_replicas,
        metrics.policy_info,
    ):
        gauge.clear()
    for name, part in readiness(registry).items():
        metrics.ready.labels(name).set(part.ready)
    for name, expert in registry.engines().items():
        metrics.expert_in_flight.labels(name).set(expert.slots.held)
    for name, expert in registry.experts.items():
        metrics.breaker_state.labels(name).set(BREAKER_VALUES[expert.breaker.state])
        if expert.state.running is not None:
            metrics.expert_replicas.labels(name).set(expert.state.running)
    if registry.policy is not None:
        metrics.policy_info.labels(registry.policy.policy_id).set(1)
