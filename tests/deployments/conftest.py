"""What tests of the graph's parts share."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.deployments.dashboard.graph import Graph, serving
from tests.deployments.harness import IngressHarness


@pytest.fixture
async def harness() -> AsyncIterator[IngressHarness]:
    opened = IngressHarness()
    yield opened
    await opened.http.aclose()


@pytest.fixture
def graph() -> Iterator[Graph]:
    with serving() as served:
        yield served
