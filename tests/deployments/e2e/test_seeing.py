"""Observability of the real graph: metrics of all replicas, traces, the decision log, ratings."""

import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from deployments.cli.outcomes import outcomes
from router.learning.log import log_files, read_records
from router.learning.record import Record
from tests.deployments.e2e.conftest import EXPERTS, Graph
from tests.deployments.e2e.load import CHAT
from tests.deployments.e2e.test_faults import wait_until_calm
from tests.deployments.observability.test_metrics import documented
from tests.e2e.conftest import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

RARE = {
    "to_router_static_rankings_total", "to_router_unscraped_replicas_total",
    "to_router_usage_estimated_total",
    "to_router_plans_total", "to_router_plans_predicted_accepted_total", "to_router_plan_quality",
    "to_router_plan_quality_predicted_total", "to_router_expected_time_ratio",
    "to_router_routed_quality", "to_router_routed_quality_predicted_total",
    "to_router_arm_requests_total", "to_router_arm_quality", "to_router_shadow_queries_total",
    "to_router_canary_gain",
}  # fmt: skip
"""Metrics that have samples only after something went wrong, with plans, a canary or a shadow, or where time
has a price."""


def send(
    graph: Graph, text: str = "What is 3 + 4?", *, key: str = "", trace: str = "", stream: bool = False
) -> httpx.Response:
    """Send one request on a connection of its own, so that either ingress replica may take it."""
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], "stream": stream}
    headers = {"authorization": f"Bearer {key or graph.key}", "traceparent": trace}
    return httpx.post(graph.url + CHAT, json=body, headers=headers, timeout=30)


def rate(graph: Graph, request_id: str, quality: float) -> int:
    headers = {"authorization": f"Bearer {graph.key}"}
    body = {"request_id": request_id, "quality": quality}
    return httpx.post(f"{graph.url}/v1/feedback", json=body, headers=headers, timeout=10).status_code


def until(true: Callable[[], bool], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.2)
    return False


def scraped(graph: Graph) -> dict[str, Metric]:
    text = httpx.get(f"{graph.url}/metrics", timeout=10).text
    return {family.name: family for family in text_string_to_metric_families(text)}


def every_kind_of_request(graph: Graph) -> None:
    for number in range(20):
        assert send(graph, f"What is {number} + 4?", stream=number % 2 == 0).status_code == 200
    limited, _ = graph.new_key(requests_per_minute=1)
    assert {send(graph, key=limited).status_code for _ in range(3)} == {200, 429}
    assert rate(graph, send(graph).headers["x-request-id"], 0.5) == 204


def test_one_scrape_shows_every_replica(graph: Graph) -> None:
    wait_until_calm(graph)
    every_kind_of_request(graph)
    time.sleep(1.1)  # the ingress caches metrics for a second
    first = scraped(graph)
    replicas = {s.labels["replica"] for family in first.values() for s in family.samples}

    assert sum(replica.startswith("to-router#Ingress#") for replica in replicas) == 2
    assert sum(replica.startswith("to-router#Router#") for replica in replicas) == 1
    running = first["vllm:num_requests_running"].samples
    assert sorted(s.labels["model_name"] for s in running) == sorted(EXPERTS)
    assert {s.labels["replica"].split("#")[0] for s in running} == {f"expert-{name}" for name in EXPERTS}
    ready = {(s.labels["replica"], s.labels["part"]): s.value for s in first["to_router_ready"].samples}
    assert len(ready) == 2 * (len(EXPERTS) + 1)
    assert set(ready.values()) == {1.0}

    def requests() -> float:
        return sum(s.value for s in scraped(graph)["to_router_requests"].samples)

    before = requests()
    assert send(graph).status_code == 200
    assert until(lambda: requests() == before + 1, 5)


def test_every_documented_metric_has_data_after_a_load(graph: Graph) -> None:
    every_kind_of_request(graph)
    time.sleep(1.1)
    names = {s.name for family in scraped(graph).values() for s in family.samples}
    names |= {name.removesuffix("_count") for name in names}

    assert documented().keys() - names <= RARE


def test_one_trace_shows_ingress_router_and_expert(graph: Graph) -> None:
    trace, parent = secrets.token_hex(16), secrets.token_hex(8)
    assert send(graph, f"What is {trace}?", trace=f"00-{trace}-{parent}-01").status_code == 200

    services = {"to-router-ingress", "to-router-router", "to-router-expert"}
    assert until(lambda: {span.service for span in graph.spans.of(trace)} == services, 10)
    spans = {span.service: span for span in graph.spans.of(trace)}
    assert len(graph.spans.of(trace)) == 3
    assert spans["to-router-ingress"].parent == parent
    assert (
        spans["to-router-router"].parent == spans["to-router-expert"].parent == spans["to-router-ingress"].id
    )


def test_a_rating_finds_its_decision_whichever_replica_it_meets(graph: Graph) -> None:
    # Queries of this test alone: an outcome is the mean of all ratings of a query and an expert.
    queries = [f"What is {n} + {n}?" for n in range(70_000, 70_010)]
    ids = [send(graph, query).headers["x-request-id"] for query in queries]

    assert [rate(graph, id_, 0.75) for id_ in ids] == [204] * 10
    assert rate(graph, "no-such-request", 1) == 404

    def records() -> list[Record]:
        return [record for file in log_files(graph.decisions) for record in read_records(file)]

    def in_files(kind: str) -> set[object]:
        return {record.request_id for record in records() if record.type == kind}

    # Each replica writes its own file: one may have a rating before another has its decision.
    assert until(lambda: set(ids) <= in_files("feedback") & in_files("decision"), 20)
    rows = [row for row in outcomes(records()) if row["quality"] == 0.75]
    assert set(queries) <= {row["query"] for row in rows}


def test_logs_are_json_with_the_request_id_and_without_query_text(graph: Graph) -> None:
    secret = f"secret{secrets.token_hex(8)}"
    id_ = send(graph, f"What is {secret}?").headers["x-request-id"]
    folder = Path("/tmp/ray/session_latest/logs")  # noqa: S108 - where Ray keeps them

    def lines() -> list[dict[str, object]]:
        files = folder.glob("serve/replica_to-router_*.log")
        text = "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    assert until(lambda: any(line.get("request_id") == id_ for line in lines()), 15)
    about = [line for line in lines() if line.get("request_id") == id_]
    (line,) = [line for line in about if line["message"] == "request ended"]
    assert line["outcome"] == "200"
    everything = [file for file in folder.rglob("*") if file.is_file() and file.stat().st_size < 50_000_000]
    assert not [file for file in everything if secret.encode() in file.read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's package `prometheus`")
def test_prometheus_scrapes_every_documented_metric(graph: Graph, tmp_path: Path) -> None:
    port = free_port()
    target = graph.url.removeprefix("http://")
    job = {"job_name": "to-router", "scrape_interval": "2s", "static_configs": [{"targets": [target]}]}
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump({"scrape_configs": [job]}), encoding="utf-8")
    address = f"127.0.0.1:{port}"
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={address}",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        every_kind_of_request(graph)

        def known() -> set[str]:
            try:
                body = httpx.get(f"http://{address}/api/v1/label/__name__/values", timeout=5).json()
            except httpx.TransportError:
                return set()
            return {name.removesuffix("_count") for name in body["data"]} | set(body["data"])

        assert until(lambda: documented().keys() - known() <= RARE, 60), documented().keys() - known()
        up = httpx.get(f"http://{address}/api/v1/query", params={"query": "up"}, timeout=5).json()
        assert [sample["value"][1] for sample in up["data"]["result"]] == ["1"]
    finally:
        process.terminate()
        process.wait(20)
