"""Fields that are dangerous at an engine: rejected, unless the configuration of an expert allows them."""

from pathlib import Path
from typing import Any

import pytest

from deployments.config import IngressConfig
from deployments.contracts.endpoints import ENDPOINTS
from deployments.contracts.forbidden_fields import FORBIDDEN_FIELDS
from tests.deployments.harness import HELLO, IngressHarness

DANGEROUS: dict[str, Any] = {
    "chat_template": "{{ 1 }}",
    "chat_template_kwargs.chat_template": "{{ 1 }}",
    "mm_processor_kwargs": {"code_revision": "main"},
    "priority": -1,
    "background": True,
    "service_tier": "priority",
}
QUERIES = {"messages": HELLO["messages"], "input": "hello", "prompt": "hello"}


def body(field: str, value: Any) -> dict[str, Any]:
    outer, _, inner = field.partition(".")
    return {outer: {inner: value} if inner else value}


@pytest.mark.parametrize("field", FORBIDDEN_FIELDS)
@pytest.mark.parametrize("model", ["small", "auto"])
async def test_a_dangerous_field_reaches_no_expert(field: str, model: str) -> None:
    harness = IngressHarness()
    response = await harness.ask(model=model, **body(field, DANGEROUS.get(field, "x")))

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "forbidden_field"
    assert response.json()["error"]["param"] == field
    assert all(not expert.asked for expert in harness.experts.values())


@pytest.mark.parametrize("path", [*ENDPOINTS, "/v1/route"])
async def test_every_endpoint_rejects_dangerous_fields(path: str) -> None:
    harness = IngressHarness(small={"capabilities": ["embeddings"]}, large={"capabilities": ["embeddings"]})
    field = "messages" if path == "/v1/route" else ENDPOINTS[path].query_field
    response = await harness.http.post(
        path, json={"model": "auto", field: QUERIES[field], "cache_salt": "of another key"}
    )

    assert (response.status_code, response.json()["error"]["param"]) == (400, "cache_salt")
    assert all(not expert.asked for expert in harness.experts.values())


@pytest.mark.parametrize("field", FORBIDDEN_FIELDS)
async def test_a_harmless_value_is_as_the_field_left_out(field: str) -> None:
    for value in FORBIDDEN_FIELDS[field].harmless:
        response = await IngressHarness().ask(**body(field, value))
        assert response.status_code == 200


async def test_tensors_in_a_part_of_a_message_are_forbidden() -> None:
    part = {"type": "prompt_embeds", "data": "AAAA"}
    response = await IngressHarness().ask(messages=[{"role": "user", "content": [part]}])

    assert (response.status_code, response.json()["error"]["param"]) == (400, "prompt_embeds")


async def test_a_setting_allows_a_field_for_one_expert() -> None:
    harness = IngressHarness(forbidden_fields={"allow": {"large": ["priority"]}})
    routed = await harness.ask(priority=3)
    named = await harness.ask(priority=3, model="small")
    both = await harness.ask(priority=3, cache_salt="x", model="large")

    assert routed.headers["x-router-expert"] == "large"
    assert harness.experts["large"].body()["priority"] == 3
    assert (named.status_code, both.status_code) == (400, 400)
    assert both.json()["error"]["param"] == "cache_salt"
    assert harness.experts["small"].asked == []


async def test_a_fallback_gets_no_field_that_it_forbids() -> None:
    harness = IngressHarness(forbidden_fields={"allow": {"small": ["priority"]}})
    harness.experts["small"].status = 500
    response = await harness.ask(priority=3, model="small", routing={"fallback": True})

    assert response.status_code == 503
    assert harness.experts["large"].asked == []


@pytest.mark.parametrize("allow", [{"nobody": ["priority"]}, {"small": ["temperature"]}])
def test_a_wrong_permission_is_an_invalid_configuration(allow: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="forbidden"):
        IngressConfig.model_validate(
            {"experts": {"small": {"app": "expert-small"}}, "forbidden_fields": {"allow": allow}}
        )


def test_the_documentation_lists_every_forbidden_field() -> None:
    text = (Path(__file__).parents[3] / "docs" / "errors.md").read_text(encoding="utf-8")

    assert [
        field.name for field in FORBIDDEN_FIELDS.values() if f"| `{field.name}` | {field.why} |" in text
    ] == [*FORBIDDEN_FIELDS]
