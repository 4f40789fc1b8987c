"""Headless Chromium for the page's tests and pictures; without it they are skipped, with the reason."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WHERE = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
SUM = "What is 12 + 30?"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def missing() -> str | None:
    """The reason why no browser can be started here; `None` when one can."""
    if not any(map(shutil.which, WHERE)):
        return f"no browser: none of {', '.join(WHERE)} is installed (Debian: apt-get install chromium)"
    try:
        import playwright.sync_api  # noqa: F401 - only whether it is there
    except ImportError:
        return "no playwright: pip install to-router[test]"
    return None


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium that sends no requests of its own."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, WHERE)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"],
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def for_tests() -> Iterator[Any]:
    """The same, or a skip with the reason; a failure where `TO_ROUTER_NEEDS_BROWSER` is set.

    Close it before any asynchronous test: while Playwright's own loop runs in this thread, no other can.
    """
    if (why := missing()) is not None:
        if os.environ.get("TO_ROUTER_NEEDS_BROWSER"):
            pytest.fail(why)
        pytest.skip(why)
    with chromium() as browser:
        yield browser


def load(tab: Any, url: str, requests: int) -> None:
    """Send requests from outside the page."""
    for _ in range(requests):
        body = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": SUM}]}
        assert tab.request.post(f"{url}/v1/chat/completions", data=body).ok


def ask(tab: Any, text: str) -> Any:
    """Send a message, wait for the end, and return the last turn."""
    tab.fill("#query", text)
    tab.press("#query", "Enter")
    tab.wait_for_selector(".turn:last-child .said[aria-busy=false]")
    return tab.locator(".turn").last
