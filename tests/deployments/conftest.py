"""What tests of the graph's parts share."""

import threading
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


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """What a hanging call waits for; set at the end, so that its thread ends."""
    event = threading.Event()
    yield event
    event.set()
