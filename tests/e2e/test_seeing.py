"""Observability of the real application: every engine's own metrics in one scrape."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from tests.cluster.observability.test_observability import FOLDER, SERIES, queries
from tests.e2e.conftest import Application, free_port

pytestmark = pytest.mark.e2e

EXPERTS = ("arithmetic", "atlas", "chat", "words")


def test_one_scrape_shows_the_engines_of_all_experts(application: Application, client: openai.OpenAI) -> None:
    for name in EXPERTS:
        client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "hello"}], max_tokens=2
        )
    time.sleep(1.1)  # the ingress caches metrics for a second
    lines = httpx.get(f"{application.url}/metrics", timeout=10).text.splitlines()

    for name in EXPERTS:
        engine = [
            line for line in lines if f'model_name="{name}"' in line and f'replica="expert-{name}#' in line
        ]
        assert any(line.startswith("vllm:num_requests_running{") for line in engine)
        assert any(line.startswith("vllm:generation_tokens_total{") for line in engine)
    assert any(line.startswith("to_router_router_batch_size_count{") for line in lines)
    assert sum(line == "# TYPE vllm:num_requests_running gauge" for line in lines) == 1


def test_every_metric_of_dashboards_and_alerts_is_emitted_by_the_running_application(
    application: Application, client: openai.OpenAI
) -> None:
    client.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": "hello"}], max_tokens=2
    )
    time.sleep(1.1)  # the ingress caches metrics for a second
    text = httpx.get(f"{application.url}/metrics", timeout=10).text

    emitted = {
        name.removesuffix("_total") + suffix
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, flags=re.MULTILINE)
        for suffix in SERIES.get(kind, ())
    }
    used = {name for _, query in queries() for name in re.findall(r"\b(?:to_router_|vllm:)\w+", query)}

    assert used - emitted == set()
    print(f"{len(used)} series in dashboards and alerts, all emitted")  # noqa: T201 - with -s


@pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: the package prometheus)"
)
def test_a_real_prometheus_reads_the_application_and_answers_every_query(
    application: Application, client: openai.OpenAI, tmp_path: Path
) -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FOLDER / "rules.yaml")]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [application.url.removeprefix("http://")]}]
    file, address = tmp_path / "prometheus.yaml", f"127.0.0.1:{free_port()}"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={tmp_path / 'data'}",
               f"--web.listen-address={address}"]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        _until(lambda: httpx.get(f"http://{address}/-/ready").status_code == 200, "it is ready")
        _until(lambda: _query(address, "query", query="to_router_ready"), "it scrapes")
        client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "hello"}], max_tokens=2
        )
        _until(lambda: _query(address, "query", query="rate(to_router_requests_total[1m]) > 0"), "it counts")
        answers = {
            query: _query(address, "query", query=query.replace("$__rate_interval", "1m"))
            for _, query in queries()
        }
        _until(
            lambda: all(rule["health"] == "ok" for group in _rules(address) for rule in group["rules"]),
            "it evaluates every rule",
        )
        firing = [rule["name"] for group in _rules(address) for rule in group["rules"] if rule["alerts"]]
    finally:
        process.terminate()
        process.wait(30)

    seen = [query for query, answer in answers.items() if answer]
    print(f"{len(answers)} queries answered, {len(seen)} with data, alerts pending or firing: {firing}")  # noqa: T201 - with -s
    assert any("vllm:" in query for query in seen)
    assert any("to_router_requests_total" in query for query in seen)
    assert "ToRouterGone" not in firing


def _query(address: str, what: str, **params: str) -> list[dict[str, Any]]:
    response = httpx.get(f"http://{address}/api/v1/{what}", params=params, timeout=10)
    assert response.status_code == 200, response.text
    result: list[dict[str, Any]] = response.json()["data"]["result"]
    return result


def _rules(address: str) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = httpx.get(f"http://{address}/api/v1/rules", timeout=10).json()["data"][
        "groups"
    ]
    return groups


def _until(done: Callable[[], object], what: str) -> None:
    ends = time.monotonic() + 60
    while True:
        try:
            if done():
                return
        except httpx.TransportError:
            pass  # it is still starting
        if time.monotonic() > ends:
            pytest.fail(f"{what}: not within a minute")
        time.sleep(0.5)
