"""The page's accessibility and size in a real browser: keyboard, axe, phones, requests."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.contracts.messages import RouterState
from deployments.settings import resolve
from tests.deployments.dashboard import browser
from tests.deployments.dashboard.graph import Graph, policy_view, serving

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
SERIOUS = {"serious", "critical"}
FIRST_VIEW_BYTES = 150_000
PAGES = ("/", "/board", "/policy")
SHOWN = {"/": "#examples button", "/board": "body[data-views]", "/policy": "#curve svg circle"}
POLICY = resolve("cluster/local/policy")


def test_keyboard_alone_is_enough(graph: Graph, tab: Any) -> None:
    tab.goto(graph.url)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    for _ in range(30):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.id") == "query":
            break
    tab.keyboard.type(browser.SUM)
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".turn .said[aria-busy=false]")

    graph.experts["arithmetic"].pause_s = 1.0
    tab.keyboard.type(browser.SUM)
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#stop:visible")
    tab.keyboard.press("Escape")

    tab.wait_for_selector(".turn:last-child .error")
    assert "stopped" in tab.locator(".turn").last.inner_text()


@pytest.fixture(scope="module")
def used() -> Iterator[Graph]:
    with serving() as graph:
        yield graph


def fill_page(tab: Any, graph: Graph, path: str) -> None:
    """Open one of the pages and wait until it shows its data."""
    tab.goto(f"{graph.url}{path}")
    if path == "/":
        browser.ask(tab, browser.SUM)
        tab.fill("#query", browser.SUM)
        tab.wait_for_selector("#live-experts li")
    elif path == "/board":
        tab.wait_for_selector("body[data-views]")
        browser.load(tab, graph.url, 3)
        tab.wait_for_selector("#end-200")
    else:
        tab.wait_for_selector("body[data-policy='0123456789ab']")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_axe_finds_no_serious_violation(used: Graph, chromium: Any, path: str, look: str) -> None:
    scheme = "dark" if look == "dark" else "light"
    size = browser.NARROW if look == "phone" else browser.WIDE
    with chromium.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce") as context:
        tab = context.new_page()
        fill_page(tab, used, path)

        tab.evaluate(AXE.read_text(encoding="utf-8"))
        violations = tab.evaluate("axe.run(document).then((result) => result.violations)")

        serious = [
            (one["id"], [node["html"][:160] for node in one["nodes"]])
            for one in violations
            if one["impact"] in SERIOUS
        ]
        assert serious == []


EMPTY = """[...document.querySelectorAll("main section, main aside")]
  .filter((one) => one.checkVisibility() && !one.querySelector("svg"))
  .filter((one) => one.innerText.replace(/^.*$/m, "").trim() === "").map((one) => one.innerText)"""
"""Panels that are shown with nothing below their heading."""


@pytest.mark.parametrize("path", PAGES)
def test_a_first_visit_shows_no_empty_panel_and_no_error(graph: Graph, tab: Any, path: str) -> None:
    policy_id = hashlib.sha256((POLICY / "manifest.json").read_bytes()).hexdigest()[:12]
    graph.api.registry.update_router(RouterState(policy_view(policy_id, str(POLICY)), None))
    tab.goto(f"{graph.url}{path}")
    tab.wait_for_selector(SHOWN[path])

    assert tab.evaluate(EMPTY) == []
    assert tab.locator(".notice:visible, .error:visible").count() == 0


@pytest.mark.parametrize("path", PAGES)
def test_a_phone_needs_no_sideways_scrolling(used: Graph, chromium: Any, path: str) -> None:
    with chromium.new_context(viewport=browser.NARROW) as context:
        tab = context.new_page()
        fill_page(tab, used, path)

        assert tab.evaluate("document.documentElement.scrollWidth") <= browser.NARROW["width"]


@pytest.mark.parametrize("path", PAGES)
def test_no_request_leaves_the_origin_and_the_first_view_is_small(
    used: Graph, chromium: Any, path: str
) -> None:
    with chromium.new_context() as context:
        tab = context.new_page()
        urls: list[str] = []
        context.on("request", lambda request: urls.append(request.url))
        session = context.new_cdp_session(tab)
        session.send("Network.enable")
        received: list[float] = []
        session.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))

        fill_page(tab, used, path)

        assert urls
        strangers = [url for url in urls if not url.startswith(f"{used.url}/")]
        assert strangers == []
        assert not any(re.search(r"favicon", url) for url in urls)
        assert len(received) >= 4
        assert sum(received) <= FIRST_VIEW_BYTES
