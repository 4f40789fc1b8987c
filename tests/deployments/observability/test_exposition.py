"""Joining the metrics of replicas: read again by Prometheus' own parser."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deployments.observability.exposition import engine_only, joined


def replica(value: float) -> bytes:
    registry = CollectorRegistry()
    Counter("asked", "How often.", ["who"], registry=registry).labels('a "quoted" {one}').inc(value)
    Counter("plain", "Without labels.", registry=registry).inc(value)
    Histogram("waits", "How long.", buckets=(1, 2), registry=registry).observe(value)
    return generate_latest(registry)


def test_each_family_appears_once_with_a_sample_of_every_replica() -> None:
    text = joined([("app#Ingress#1", replica(1)), ("app#Ingress#2", replica(5))]).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}

    assert text.count("# TYPE asked_total counter") == text.count("# HELP waits How long.") == 1
    found = {(s.labels["replica"], s.labels["who"]): s.value for s in families["asked"].samples}
    assert found == {
        ("app#Ingress#1", 'a "quoted" {one}'): 1.0,
        ("app#Ingress#2", 'a "quoted" {one}'): 5.0,
    }
    assert {s.labels["replica"]: s.value for s in families["plain"].samples} == {
        "app#Ingress#1": 1.0,
        "app#Ingress#2": 5.0,
    }
    buckets = [s for s in families["waits"].samples if s.name == "waits_bucket"]
    assert len(buckets) == 6
    assert all(s.labels["replica"] for s in buckets)


def test_the_samples_of_a_family_are_together() -> None:
    lines = joined([("1", replica(1)), ("2", replica(2))]).decode().splitlines()
    order = [
        line.split("{")[0].removesuffix("_total") for line in lines if line.startswith(("asked", "plain"))
    ]

    assert order == ["asked", "asked", "plain", "plain"]


def test_of_an_engine_only_its_own_families_are_taken() -> None:
    engine = (
        b"# HELP python_gc_total gc\n# TYPE python_gc_total counter\npython_gc_total 3\n"
        b"# HELP vllm:num_requests_running Running.\n# TYPE vllm:num_requests_running gauge\n"
        b'vllm:num_requests_running{engine="0"} 2\n'
    )

    assert joined([("e", engine_only(engine))]) == (
        b"# HELP vllm:num_requests_running Running.\n# TYPE vllm:num_requests_running gauge\n"
        b'vllm:num_requests_running{replica="e",engine="0"} 2\n'
    )
