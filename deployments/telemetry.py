"""Every metric that the graph emits, one home for their names; labels are bounded.

One registry per process; `/metrics` gathers the texts of all replicas and adds the label `replica`.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

STAGE_BUCKETS = (
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    120,
    300,
    600,
)

registry = CollectorRegistry()

requests = Counter(
    "to_router_requests",
    "Requests by endpoint kind and outcome class (the status, or `disconnected`).",
    ["kind", "outcome"],
    registry=registry,
)
decisions = Counter(
    "to_router_decisions",
    "Answered requests by the expert that answered and the reason of the choice.",
    ["expert", "reason"],
    registry=registry,
)
attempts = Counter(
    "to_router_attempts",
    "Attempts on experts by how they ended before the first byte.",
    ["expert", "outcome"],
    registry=registry,
)
stage_seconds = Histogram(
    "to_router_stage_seconds",
    "Seconds spent in each stage of a request: parse, admit, route, first_byte, whole.",
    ["stage"],
    buckets=STAGE_BUCKETS,
    registry=registry,
)
router_seconds = Histogram(
    "to_router_router_seconds",
    "Seconds of one batch in a router replica: encode, decide.",
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
static_rankings = Counter(
    "to_router_static_rankings", "Requests ranked without the router, by cause.", ["cause"], registry=registry
)
tokens = Counter(
    "to_router_tokens",
    "Tokens by expert and direction, as the experts report them.",
    ["expert", "direction"],
    registry=registry,
)
cost_usd = Counter(
    "to_router_cost_usd",
    "US dollars by expert: `predicted` when chosen, `observed` from usage and prices.",
    ["expert", "kind"],
    registry=registry,
)
baseline_usd = Counter(
    "to_router_baseline_usd",
    "US dollars that the same tokens would have cost on the dearest expert.",
    registry=registry,
)
in_flight = Gauge("to_router_in_flight", "Requests being answered by this replica.", registry=registry)
queued = Gauge("to_router_queued", "Requests waiting for a place in this replica.", registry=registry)
refused = Counter(
    "to_router_refused", "Requests refused by admission or keys, by code.", ["code"], registry=registry
)
breaker_open = Gauge(
    "to_router_breaker_open",
    "1 while an expert's circuit breaker is open, 0.5 half open.",
    ["expert"],
    registry=registry,
)
expert_replicas = Gauge(
    "to_router_expert_replicas",
    "Running replicas of an expert, as this replica sees them.",
    ["expert"],
    registry=registry,
)
policy_refused = Gauge(
    "to_router_policy_refused", "1 while the last user_config of Router is refused.", registry=registry
)
policy_info = Gauge("to_router_policy_info", "1 for the policy in force.", ["policy"], registry=registry)


def exposition() -> bytes:
    """This process' metrics in the text format of Prometheus."""
    return generate_latest(registry)
