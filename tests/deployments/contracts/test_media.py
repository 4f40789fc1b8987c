"""Images: a URL in a request is handed on only to experts configured for it, and never fetched by us."""

from typing import Any

import pytest

from deployments.contracts.errors import ExpertUnavailable
from tests.deployments.harness import IngressHarness

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
def harness() -> IngressHarness:
    """Of two experts the second, and the router's second choice, can see."""
    return IngressHarness(large={"capabilities": ["tools", "vision"]})


@pytest.mark.parametrize("path", FORMS)
async def test_an_image_goes_only_to_experts_that_can_see(harness: IngressHarness, path: str) -> None:
    answered = await harness.http.post(path, json={"model": "auto", **FORMS[path]})

    assert answered.status_code == 200
    assert answered.headers["x-router-expert"] == "large"
    assert harness.experts["small"].asked == []


@pytest.mark.parametrize("path", FORMS)
async def test_not_even_to_one_that_is_named(harness: IngressHarness, path: str) -> None:
    refused = await harness.http.post(path, json={"model": "small", **FORMS[path]})

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_eligible_expert")
    assert harness.experts["small"].asked == []


@pytest.mark.parametrize("path", FORMS)
async def test_nor_by_fallback(harness: IngressHarness, path: str) -> None:
    harness.experts["large"].parts = [ExpertUnavailable("large", "gone")]
    refused = await harness.http.post(path, json={"model": "auto", **FORMS[path]})

    assert refused.status_code == 503
    assert harness.experts["small"].asked == []
