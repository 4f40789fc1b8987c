"""What tests of the graph's parts share."""

from collections.abc import AsyncIterator

import pytest

from tests.deployments.harness import IngressHarness


@pytest.fixture
async def harness() -> AsyncIterator[IngressHarness]:
    opened = IngressHarness()
    yield opened
    await opened.http.aclose()
