"""Every metric that the graph emits: one home for their names; docs/metrics.md says how to read them.

One registry per process, standing for one replica; labels are bounded. Knows nothing of requests:
`accounting` and the deployments say what happened.
"""

from typing import Any, Self

import prometheus_client
from prometheus_client import (
    CollectorRegistry,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics import MetricWrapperBase

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter that nothing reads

STAGE_BUCKETS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600,
)  # fmt: skip
RATIO_BUCKETS = (0.1, 0.25, 0.5, 0.8, 0.95, 1.05, 1.25, 2, 4, 10)
QUALITY_BUCKETS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class _LookedUp(MetricWrapperBase):
    """A metric that finds its series by one look-up: a request counts in twenty of them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._found: dict[tuple[str, ...], Self] = {}
        super().__init__(*args, **options)

    def labels(self, *values: Any, **_: Any) -> Self:
        """Return the series of these labels, which are given by their order."""
        series = self._found.get(values)
        if series is None:
            series = self._found[values] = super().labels(*values)
        return series


class Counter(_LookedUp, prometheus_client.Counter):
    """A counter with one look-up."""


class Histogram(_LookedUp, prometheus_client.Histogram):
    """A histogram with one look-up."""


registry = CollectorRegistry()
process = ProcessCollector(registry=registry)
"""Memory, descriptors and processor time of each ingress and router replica."""
tasks = Gauge("to_router_tasks", "Tasks of a replica's event loop.", registry=registry)

# --- requests ---
requests = Counter(
    "to_router_requests",
    "Requests by endpoint kind and outcome: the status, disconnected, or broken (after the first byte).",
    ["kind", "outcome"],
    registry=registry,
)
decisions = Counter(
    "to_router_decisions",
    "Requests with a response, by the expert that responded and the reason of the choice.",
    ["expert", "reason"],
    registry=registry,
)
attempts = Counter(
    "to_router_attempts",
    "Calls of experts, by their outcome before the first byte.",
    ["expert", "outcome"],
    registry=registry,
)
static_rankings = Counter(
    "to_router_static_rankings", "Requests ranked without the router, by cause.", ["cause"], registry=registry
)
stage_seconds = Histogram(
    "to_router_stage_seconds",
    "Seconds in each stage of a request: parse, admit, route, connect, expert, first_byte, whole.",
    ["stage"],
    buckets=STAGE_BUCKETS,
    registry=registry,
)
expert_seconds = Histogram(
    "to_router_expert_seconds",
    "Seconds that an expert took: to the first byte of a stream, or to a complete non-streaming response.",
    ["expert", "answer"],
    buckets=STAGE_BUCKETS,
    registry=registry,
)

plans = Counter(
    "to_router_plans",
    "Plans by result: accepted, rejected, overrun, else_failed, full (not carried out).",
    ["plan", "result"],
    registry=registry,
)
plans_predicted = Counter(
    "to_router_plans_predicted_accepted",
    "Predicted acceptances of the plans that were carried out: the sum of their probabilities.",
    ["plan"],
    registry=registry,
)

plan_quality = Histogram(
    "to_router_plan_quality",
    "Ratings of answers that a plan accepted.",
    ["plan"],
    buckets=QUALITY_BUCKETS,
    registry=registry,
)
plan_quality_predicted = Counter(
    "to_router_plan_quality_predicted",
    "Predicted quality of the accepted answers that were rated: the sum of their probabilities to be right.",
    ["plan"],
    registry=registry,
)

# --- money and tokens ---
tokens = Counter(
    "to_router_tokens",
    "Tokens by expert and direction, as the expert reports them, else estimated.",
    ["expert", "direction"],
    registry=registry,
)
usage_estimated = Counter(
    "to_router_usage_estimated",
    "Responses without a usage report, whose tokens were estimated.",
    ["expert"],
    registry=registry,
)
cost_usd = Counter(
    "to_router_cost_usd",
    "US dollars by expert: predicted at the decision, observed from usage and prices.",
    ["expert", "kind"],
    registry=registry,
)
cost_ratio = Histogram(
    "to_router_cost_ratio",
    "Observed over predicted cost of a routed request.",
    ["expert"],
    buckets=RATIO_BUCKETS,
    registry=registry,
)
baseline_usd = Counter(
    "to_router_baseline_usd",
    "US dollars that the same tokens would have cost on the most expensive expert, or the best single one.",
    ["baseline"],
    registry=registry,
)
key_cost_usd = Counter(
    "to_router_key_cost_usd", "Observed US dollars by key (none: without one).", ["key"], registry=registry
)
key_saved_usd = Counter(
    "to_router_key_saved_usd",
    "US dollars saved against the most expensive expert, by key (none: without one).",
    ["key"],
    registry=registry,
)

# --- admission, limits, circuit breakers: set whenever metrics are read ---
in_flight = Gauge("to_router_in_flight", "Requests that hold a slot of this replica.", registry=registry)
queued = Gauge("to_router_queued", "Requests waiting for a slot of this replica.", registry=registry)
limit = Gauge("to_router_limit", "The bounds in effect: in_flight, queued.", ["what"], registry=registry)
refused = Counter(
    "to_router_refused", "Requests rejected with 429 or 503, by code.", ["code"], registry=registry
)
expert_in_flight = Gauge(
    "to_router_expert_in_flight",
    "Requests of this replica in flight to an expert.",
    ["expert"],
    registry=registry,
)
conversation_turns = Counter(
    "to_router_conversation_turns",
    "Later turns of conversations, by whether the expert of the turn before responded.",
    ["result"],
    registry=registry,
)
for _result in ("stayed", "moved"):  # there from the start: a graph without conversations has 0 of both
    conversation_turns.labels(_result)
expected_time_ratio = Histogram(
    "to_router_expected_time_ratio",
    "Observed time of a response by the expected one, to the first byte and to the end; 1 is exact.",
    ["expert", "part"],
    buckets=RATIO_BUCKETS,
    registry=registry,
)
breaker_state = Gauge(
    "to_router_breaker_state",
    "An expert's circuit breaker: 0 closed, 0.5 half open, 1 open.",
    ["expert"],
    registry=registry,
)
expert_replicas = Gauge(
    "to_router_expert_replicas",
    "Running replicas of an expert, as this replica sees them.",
    ["expert"],
    registry=registry,
)
ready = Gauge(
    "to_router_ready", "1 while a part of the graph is ready, by /ready.", ["part"], registry=registry
)
ledger_away = Gauge(
    "to_router_ledger_away", "1 while the ledger of keys cannot be reached.", registry=registry
)
config_refused = Gauge(
    "to_router_config_refused", "1 while the last user_config of this deployment is rejected.",
    ["deployment"], registry=registry,
)  # fmt: skip
config_restored = Gauge(
    "to_router_config_restored",
    "1 while a replica runs with the saved user_config, because it started with an invalid one.",
    ["deployment"], registry=registry,
)  # fmt: skip

# --- the router ---
router_seconds = Histogram(
    "to_router_router_seconds",
    "Seconds in a router replica: queue (one query), encode and score (one batch).",
    ["stage"],
    buckets=STAGE_BUCKETS,
    registry=registry,
)
router_batch = Histogram(
    "to_router_router_batch_size",
    "Queries per batch in a router replica.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    registry=registry,
)
router_cached = Counter(
    "to_router_router_cached_embeddings", "Queries whose embedding was already known.", registry=registry
)
router_unfamiliar = Counter(
    "to_router_router_unfamiliar", "Queries far from all training data.", registry=registry
)
policy_swaps = Counter(
    "to_router_policy_swaps", "Policies that a router replica loaded or rejected: `accepted`, `refused`.",
    ["outcome"], registry=registry,
)  # fmt: skip
policy_info = Gauge("to_router_policy_info", "1 for the policy in effect.", ["policy"], registry=registry)

# --- canary and shadow ---
canary = Gauge(
    "to_router_canary",
    "1 for the state of the configured canary: waiting, running, rolled_back, over.",
    ["state"],
    registry=registry,
)
canary_gain = Gauge(
    "to_router_canary_gain",
    "Quality of the canary less that of its control, by 50 ratings of each or more: estimate, lower, upper.",
    ["policy", "bound"],
    registry=registry,
)
arm_requests = Counter(
    "to_router_arm_requests",
    "Requests while a canary runs, by arm (canary, control) and result (success, failure).",
    ["arm", "result"],
    registry=registry,
)
arm_quality = Histogram(
    "to_router_arm_quality",
    "Ratings of responses while a canary runs, by arm.",
    ["arm"],
    buckets=QUALITY_BUCKETS,
    registry=registry,
)
shadow_queries = Counter(
    "to_router_shadow_queries",
    "Queries for the shadow policy: scored, dropped (its queue was full), failed.",
    ["outcome"],
    registry=registry,
)

# --- the record ---
log_records = Counter(
    "to_router_decision_log_records",
    "Records of the decision log: written, dropped (its queue was full), failed (disk errors).",
    ["outcome"],
    registry=registry,
)
feedback_quality = Histogram(
    "to_router_feedback_quality",
    "Ratings of clients by POST /v1/feedback.",
    ["expert"],
    buckets=QUALITY_BUCKETS,
    registry=registry,
)
routed_quality = Histogram(
    "to_router_routed_quality",
    "Ratings of responses whose quality was predicted, by the expert that responded.",
    ["expert"],
    buckets=QUALITY_BUCKETS,
    registry=registry,
)
routed_quality_predicted = Counter(
    "to_router_routed_quality_predicted",
    "Predicted quality of the responses that were rated: the sum of their scores.",
    ["expert"],
    registry=registry,
)
unscraped = Counter(
    "to_router_unscraped_replicas",
    "Replicas that did not give their metrics in time and were left out, by kind.",
    ["kind"],
    registry=registry,
)


def exposition() -> bytes:
    """This process' metrics in the text format of Prometheus."""
    return generate_latest(registry)
