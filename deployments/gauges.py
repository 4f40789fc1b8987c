"""Gauges of an ingress replica, set to what is now whenever its metrics are read."""

import asyncio

from deployments import telemetry
from deployments.directory import Directory
from deployments.fleet import Fleet
from deployments.limits.admission import Gate
from deployments.limits.ledger_client import LedgerClient

BREAKER_VALUES = {"closed": 0.0, "half_open": 0.5, "open": 1.0}


def observe(
    directory: Directory, fleet: Fleet, gate: Gate, config_error: str | None, ledger: LedgerClient | None
) -> None:
    """Set them all; those of experts and policies that are gone go too."""
    telemetry.tasks.set(len(asyncio.all_tasks()))
    limits = directory.config.limits
    telemetry.in_flight.set(gate.held)
    telemetry.queued.set(gate.queued)
    telemetry.limit.labels("in_flight").set(limits.max_in_flight)
    telemetry.limit.labels("queued").set(limits.max_queued)
    telemetry.config_refused.labels("Ingress").set(config_error is not None)
    telemetry.ledger_away.set(ledger is not None and ledger.away)
    for gauge in (
        telemetry.ready,
        telemetry.expert_in_flight,
        telemetry.breaker_state,
        telemetry.expert_replicas,
        telemetry.policy_info,
    ):
        gauge.clear()
    for name, part in directory.parts().items():
        telemetry.ready.labels(name).set(part.ready)
    for name, state in directory.experts.items():
        telemetry.expert_in_flight.labels(name).set(fleet.gates[name].held)
        telemetry.breaker_state.labels(name).set(BREAKER_VALUES[fleet.health[name].state])
        if state.running is not None:
            telemetry.expert_replicas.labels(name).set(state.running)
    if directory.policy is not None:
        telemetry.policy_info.labels(directory.policy.policy_id).set(1)
