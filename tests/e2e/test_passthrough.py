"""Responses of an expert equal those of a bare vLLM server of the same expert."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cluster.local.run import ROOT
from deployments.engine_settings import ExpertArgs
from deployments.expert.cpu_dtype import dtype_of
from deployments.placement import CPU_ENGINE_ENVIRONMENT
from load_tests.processes import responds, running
from tests.e2e.conftest import Application, free_port

pytestmark = pytest.mark.e2e

MESSAGES = [{"role": "user", "content": "What is 12 + 30?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
CHAT = {"model": "arithmetic", "messages": MESSAGES, "max_tokens": 12, "temperature": 0, "seed": 1}
CHANGING = {"id", "created", "system_fingerprint", "service_tier", "created_at", "completed_at", "item_id"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("/v1/chat/completions", CHAT),
    "n": ("/v1/chat/completions", {**CHAT, "n": 2, "temperature": 1.0}),
    "stop": ("/v1/chat/completions", {**CHAT, "stop": ["4"]}),
    "seed": ("/v1/chat/completions", {**CHAT, "temperature": 1.0, "seed": 42}),
    "logprobs": ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2}),
    "json schema": (
        "/v1/chat/completions",
        {
            **CHAT,
            "max_tokens": 40,
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}},
        },
    ),
    "tools": ("/v1/chat/completions", {**CHAT, "tools": [TOOL]}),
    "forced tool": (
        "/v1/chat/completions",
        {
            **CHAT,
            "max_tokens": 60,
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "add"}},
        },
    ),
    "vLLM extras": (
        "/v1/chat/completions",
        {**CHAT, "top_k": 1, "repetition_penalty": 1.5, "ignore_eos": True, "return_token_ids": True},
    ),
    "completions": (
        "/v1/completions",
        {"model": "arithmetic", "prompt": "12 + 30", "max_tokens": 8, "temperature": 0},
    ),
    "tokenize": ("/tokenize", {"model": "arithmetic", "messages": MESSAGES}),
    "messages": (
        "/v1/messages",
        {"model": "arithmetic", "messages": MESSAGES, "max_tokens": 12, "temperature": 0},
    ),
    "responses": (
        "/v1/responses",
        {"model": "arithmetic", "input": "What is 12 + 30?", "max_output_tokens": 16, "temperature": 0},
    ),
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bare vLLM server of the arithmetic expert."""
    port = free_port()
    model = str(ROOT / "cluster/local/experts/arithmetic")
    dtype = dtype_of(ExpertArgs(name="arithmetic", model=model, accelerator="cpu"))
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", model, "--served-model-name", "arithmetic"),
        *("--max-model-len", "512", "--dtype", dtype, "--enforce-eager", "--max-num-seqs", "32"),
        *("--kv-cache-memory-bytes", "134217728"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    url, log = f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("bare") / "vllm.log"
    environment = {**CPU_ENGINE_ENVIRONMENT, "HF_HUB_OFFLINE": "1"}
    with running(command, log=log, ready=responds(f"{url}/health"), env=environment):
        yield url


def steady(value: Any) -> Any:
    """A response without the fields that differ from call to call."""
    if isinstance(value, dict):
        return {
            key: steady(item)
            for key, item in value.items()
            if key not in CHANGING and not (key == "id" and isinstance(item, str))
        }
    return [steady(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", CASES)
def test_an_answer_is_the_bare_servers(application: Application, bare: str, case: str) -> None:
    path, body = CASES[case]
    ours = httpx.post(application.url + path, json=body, timeout=60)
    theirs = httpx.post(bare + path, json=body, timeout=60)

    assert ours.status_code == theirs.status_code == 200, (ours.text, theirs.text)
    assert steady(ours.json()) == steady(theirs.json())


@pytest.mark.any_transport
@pytest.mark.parametrize("expert", ["arithmetic", "words", "atlas"])
def test_a_small_models_object_ends_within_its_tokens(application: Application, expert: str) -> None:
    """Where JSON may hold any whitespace, a small model fills an object with blanks until its limit."""
    schema = {**SCHEMA, "properties": {"sum": {"enum": [41, 42, 43]}}}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    body = {**CHAT, "model": expert, "max_tokens": 60, "response_format": form}
    response = httpx.post(f"{application.url}/v1/chat/completions", json=body, timeout=60)

    assert json.loads(response.json()["choices"][0]["message"]["content"])["sum"] in {41, 42, 43}


@pytest.mark.parametrize("case", ["plain", "logprobs", "forced tool", "completions", "messages", "responses"])
def test_a_stream_is_the_bare_servers(application: Application, bare: str, case: str) -> None:
    path, body = CASES[case]
    if path in {"/v1/chat/completions", "/v1/completions"}:
        body = {**body, "stream_options": {"include_usage": True}}
    ours, theirs = (_events(url + path, {**body, "stream": True}) for url in (application.url, bare))

    assert len(theirs) > 1
    assert _joined(ours) == _joined(theirs)
    assert ours[-1] == theirs[-1]


def _events(url: str, body: dict[str, Any]) -> list[Any]:
    with httpx.stream("POST", url, json=body, timeout=60) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        data = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    return [item if item == "[DONE]" else steady(json.loads(item)) for item in data]


def _joined(events: list[Any]) -> str:
    """All text of a stream: its division into events depends on the load, the text does not."""
    return "".join(_texts(event) for event in events)


def _texts(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(
            item
            if key in {"content", "text", "arguments", "delta"} and isinstance(item, str)
            else _texts(item)
            for key, item in value.items()
        )
    return "".join(_texts(item) for item in value) if isinstance(value, list) else ""
