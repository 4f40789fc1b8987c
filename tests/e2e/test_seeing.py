"""What an operator sees of the real application: every engine's own metrics in one scrape."""

import time

import httpx
import openai
import pytest

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
