"""What an operator sees of the real application: every engine's own metrics in one scrape."""

import re
import time

import httpx
import openai
import pytest

from tests.cluster.observability.test_observability import SERIES, queries
from tests.e2e.conftest import Application

pytestmark = pytest.mark.e2e

EXPERTS = ("arithmetic", "atlas", "generalist", "words")


def test_one_scrape_tells_of_the_engines_of_all_experts(
    application: Application, client: openai.OpenAI
) -> None:
    for name in EXPERTS:
        client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "hello"}], max_tokens=2
        )
    time.sleep(1.1)  # what was gathered before is told for a second
    lines = httpx.get(f"{application.url}/metrics", timeout=10).text.splitlines()

    for name in EXPERTS:
        told = [
            line for line in lines if f'model_name="{name}"' in line and f'replica="expert-{name}#' in line
        ]
        assert any(line.startswith("vllm:num_requests_running{") for line in told)
        assert any(line.startswith("vllm:generation_tokens_total{") for line in told)
    assert any(line.startswith("to_router_router_batch_size_count{") for line in lines)
    assert sum(line == "# TYPE vllm:num_requests_running gauge" for line in lines) == 1


def test_every_metric_of_dashboards_and_alerts_is_emitted_by_the_running_application(
    application: Application, client: openai.OpenAI
) -> None:
    client.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": "hello"}], max_tokens=2
    )
    time.sleep(1.1)  # what was gathered before is told for a second
    text = httpx.get(f"{application.url}/metrics", timeout=10).text

    emitted = {
        name.removesuffix("_total") + suffix
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, flags=re.MULTILINE)
        for suffix in SERIES.get(kind, ())
    }
    used = {name for _, query in queries() for name in re.findall(r"\b(?:to_router_|vllm:)\w+", query)}

    assert used - emitted == set()
    print(f"{len(used)} series in dashboards and alerts, all emitted")  # noqa: T201 - with -s
