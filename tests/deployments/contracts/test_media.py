"""Images: a URL in a request is handed on only to experts configured for it, and never fetched by us."""

from typing import Any

import pytest

from deployments.contracts.errors import ExpertUnavailable
from tests.deployments.harness import House

URL = "http://169.254.169.254/latest/meta-data"
FORMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL}}]}]
    },
    "/v1/responses": {
        "input": [{"role": "user", "content": [{"type": "input_image", "image_url": URL}]}],
    },
    "/v1/messages": {
        "max_tokens": 5,
        "messages": [
            {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": URL}}]},
        ],
    },
}


@pytest.fixture
def house() -> House:
    """Of two experts the second, and the router's second choice, can see."""
    return House(large={"capabilities": ["tools", "vision"]})


@pytest.mark.parametrize("path", FORMS)
async def test_an_image_goes_only_to_experts_that_can_see(house: House, path: str) -> None:
    answered = await house.http.post(path, json={"model": "auto", **FORMS[path]})

    assert answered.status_code == 200
    assert answered.headers["x-router-expert"] == "large"
    assert house.experts["small"].asked == []


@pytest.mark.parametrize("path", FORMS)
async def test_not_even_to_one_that_is_named(house: House, path: str) -> None:
    refused = await house.http.post(path, json={"model": "small", **FORMS[path]})

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_eligible_expert")
    assert house.experts["small"].asked == []


@pytest.mark.parametrize("path", FORMS)
async def test_nor_by_fallback(house: House, path: str) -> None:
    house.experts["large"].parts = [ExpertUnavailable("large", "gone")]
    refused = await house.http.post(path, json={"model": "auto", **FORMS[path]})

    assert refused.status_code == 503
    assert house.experts["small"].asked == []
