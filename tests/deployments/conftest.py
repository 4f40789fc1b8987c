"""What tests of the graph's parts share."""

from collections.abc import AsyncIterator

import pytest

from tests.deployments.harness import House


@pytest.fixture
async def house() -> AsyncIterator[House]:
    opened = House()
    yield opened
    await opened.http.aclose()
