"""Which experts a request's length excludes."""

from typing import Any

import pytest

from tests.deployments.harness import IngressHarness

WINDOW = 100


def ingress(**config: Any) -> IngressHarness:
    return IngressHarness(small={"context_window": WINDOW}, large={"context_window": WINDOW}, **config)


def text(tokens: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": "abcd" * (tokens - 4)}]


@pytest.mark.parametrize(("tokens", "status"), [(100, 200), (150, 200), (151, 400)])
async def test_an_estimate_excludes_an_expert_only_when_far_over(tokens: int, status: int) -> None:
    response = await ingress().ask(messages=text(tokens))

    assert response.status_code == status
    if status == 400:
        assert response.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("routing", [{"experts": ["small"]}, {"exclude": ["large"]}])
async def test_lists_of_the_caller_do_not_hide_that_the_request_is_too_long(routing: dict[str, Any]) -> None:
    response = await ingress().ask(messages=text(200), routing=routing)

    assert response.json()["error"]["code"] == "context_length_exceeded"


async def test_lists_of_the_caller_alone_are_no_matter_of_length() -> None:
    response = await ingress().ask(messages=text(10), routing={"experts": []})

    assert response.json()["error"]["code"] == "no_eligible_expert"


async def test_the_next_expert_is_called_where_the_engine_counts_more() -> None:
    harness = ingress()
    small = harness.experts["small"]
    small.status = 400
    small.parts = [b'{"error": {"message": "maximum context length is 100 tokens", "code": 400}}']
    response = await harness.ask(messages=text(120))

    assert (response.status_code, response.headers["x-router-expert"]) == (200, "large")


async def test_too_long_for_every_engine_is_one_error_of_length() -> None:
    harness = ingress()
    for expert in harness.experts.values():
        expert.status = 400
        expert.parts = [b'{"error": {"message": "maximum context length is 100 tokens", "code": 400}}']
    response = await harness.ask(messages=text(120))

    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
