"""One browser for each file of tests, a fresh tab and a fresh graph for each test."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.deployments.dashboard import browser

PATIENCE_MS = 5_000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.for_tests() as opened:
        yield opened


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A tab; a script error or a violation of the security policy in it fails the test."""
    with chromium.new_context(viewport=browser.WIDE) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
        yield page
        assert not faults
