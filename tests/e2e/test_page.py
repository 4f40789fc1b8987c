"""The page in a real browser on the real application: real Ray, the pocket experts on vLLM."""

import asyncio
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from cluster.pocket.questions import questions
from tests.deployments.dashboard import browser
from tests.e2e.conftest import Application
from tests.e2e.test_deploys import answers, processes, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.any_transport]

PATIENCE_MS = 20_000
SUM = "What is 12 plus 30?"
OPEN = "Why is the sky blue?"
RATE = 6.0
LOAD_S = 24.0
TOLERANCE = 0.05
MARKUP = "<script>window.hacked=1</script> **bold** <img src=x onerror=window.hacked=1>"
SEEN_WITHIN_MS = 5_000
KILLED = "ray::ServeReplica:expert-words:Expert"
QUERIES = tuple(question.query for question in questions("heldout", n=6, seed=5))


@dataclass(frozen=True, slots=True)
class Done:
    """One successful request of the load."""

    at: float
    expert: str


class Load:
    """Requests at a steady rate from a thread of its own."""

    def __init__(self, url: str) -> None:
        self.done: list[Done] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(url)), daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *why: object) -> None:
        self._thread.join()

    async def _run(self, url: str) -> None:
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=url, timeout=60) as http, asyncio.TaskGroup() as group:
            for number in range(int(RATE * LOAD_S)):
                await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
                group.create_task(self._one(http, QUERIES[number % len(QUERIES)]))

    async def _one(self, http: httpx.AsyncClient, query: str) -> None:
        body = {"model": "auto", "max_tokens": 8, "messages": [{"role": "user", "content": query}]}
        response = await http.post("/v1/chat/completions", json=body)
        assert response.status_code == 200, response.text
        self.done.append(Done(time.time(), response.headers["x-router-expert"]))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.for_tests() as opened:
        yield opened


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    with chromium.new_context(viewport=browser.WIDE) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        yield page


def test_chat_streams_an_answer_and_a_slider_moves_the_decision(application: Application, tab: Any) -> None:
    tab.goto(application.url)
    tab.wait_for_selector("#examples button")
    assert tab.locator("#examples button").count() == 4
    tab.fill("#query", SUM)
    tab.wait_for_selector("#live-experts li")
    assert tab.locator("#live-experts li").count() == 4
    tab.press("#query", "Enter")
    tab.wait_for_selector(".turn .said[aria-busy=false]")
    assert re.search(r"\d", tab.inner_text(".turn .said"))
    assert "tokens" in tab.inner_text(".turn .answer")

    moved = {query: chosen_along_the_slider(tab, query) for query in (*QUERIES[:2], OPEN)}
    assert moved[OPEN][0] == "chat", moved
    assert all(chosen[-1] != "chat" for chosen in moved.values()), moved


def chosen_along_the_slider(tab: Any, query: str) -> list[str]:
    """The chosen expert at best quality, in the middle, and where cost outweighs quality."""
    tab.click("#fresh")
    tab.fill("#query", query)
    chosen = []
    for at in ("0", "50", "100"):
        tab.locator("#cost").fill(at)
        words = "best quality" if at == "0" else f"cost_weight {tab.inner_text('#cost-value')}"
        tab.wait_for_selector(f"#live:has-text('{words}')")
        tab.wait_for_timeout(500)  # the words may be the same as for the last query's decision
        chosen.append(tab.get_attribute("#live", "data-expert"))
    return chosen


def test_all_experts_answer_side_by_side(application: Application, tab: Any) -> None:
    send_with(tab, {"max_tokens": 16})
    tab.goto(application.url)
    tab.check("#all")
    tab.fill("#query", SUM)
    tab.press("#query", "Enter")

    for name in ("arithmetic", "words", "atlas", "chat"):
        tab.wait_for_selector(f".answer[data-expert={name}] .said[aria-busy=false]")
        assert tab.inner_text(f".answer[data-expert={name}] .said").strip()


def test_the_board_agrees_with_the_load_generator(application: Application, tab: Any) -> None:
    tab.goto(f"{application.url}/board")
    tab.select_option("#window", "10")
    tab.wait_for_selector("body[data-views]")
    with Load(application.url) as load:
        time.sleep(LOAD_S - 4)
        dataset = tab.evaluate("({...document.body.dataset})")
        rate = float(tab.get_attribute("#rate", "data-value"))
        shares = {
            row.get_attribute("data-expert"): float(row.get_attribute("data-share"))
            for row in tab.locator("#experts tbody tr").all()
        }
    begin, end = float(dataset["from"]), float(dataset["at"])
    seen = [one for one in load.done if begin < one.at <= end]

    assert end - begin == pytest.approx(10, abs=3)
    assert rate == pytest.approx(len(seen) / (end - begin), rel=TOLERANCE)
    for name, share in shares.items():
        counted = sum(one.expert == name for one in seen) / len(seen)
        assert share == pytest.approx(counted, abs=TOLERANCE)


def test_the_policy_in_effect_is_shown(application: Application, tab: Any) -> None:
    tab.goto(f"{application.url}/policy")
    tab.wait_for_selector("body[data-policy]")
    policy_id = httpx.get(f"{application.url}/page/data/policy").json()["policy_id"]

    assert policy_id
    assert policy_id in tab.inner_text("#facts")
    assert "Routing policy" in tab.inner_text("#card")
    assert tab.locator("#curve svg circle").count() > 0
    assert tab.locator("#choices tbody tr").count() > 0
    assert tab.is_hidden("#why")


def send_with(page: Any, fields: dict[str, Any]) -> None:
    """Add fields to the body of every request that the page makes from now on."""

    def changed(route: Any) -> None:
        route.continue_(post_data=json.dumps({**json.loads(route.request.post_data), **fields}))

    page.route("**/v1/chat/completions", changed)


def test_markup_of_a_model_is_harmless_and_readable(application: Application, tab: Any) -> None:
    send_with(tab, {"structured_outputs": {"choice": [MARKUP]}})
    tab.goto(application.url)
    tab.fill("#query", SUM)
    tab.press("#query", "Enter")
    tab.wait_for_selector(".turn .said[aria-busy=false]")

    assert tab.inner_text(".turn .said") == MARKUP.replace("**", "")
    assert tab.inner_text(".turn .said strong") == "bold"
    assert tab.locator("#log script, #log img").count() == 0
    assert tab.evaluate("window.hacked") is None


def test_a_killed_expert_is_seen_on_the_board_and_in_the_attempts(application: Application, tab: Any) -> None:
    wait_until(lambda: len(processes(KILLED)[KILLED]) == 1, "one replica of the expert runs")
    tab.goto(f"{application.url}/board")
    tab.wait_for_selector("body[data-views]")
    other = tab.context.new_page()
    other.set_default_timeout(PATIENCE_MS)
    send_with(other, {"routing": {"exclude": ["chat"]}})  # it would answer instead, and takes its time
    other.goto(application.url)
    other.fill("#query", "Reverse the word 'lantern'.")
    other.wait_for_selector("#live[data-expert=words]")

    for pid in processes(KILLED)[KILLED]:
        os.kill(pid, signal.SIGKILL)
    other.press("#query", "Enter")
    other.wait_for_selector(".turn .said[aria-busy=false]", timeout=SEEN_WITHIN_MS)
    tab.bring_to_front()
    tab.wait_for_selector("#experts [data-expert=words] .bad", timeout=SEEN_WITHIN_MS)
    text = other.inner_text(".turn")
    wait_until(lambda: answers(application, "words").status_code == 200, "the expert is back")

    assert "experts were tried: words gave no answer" in text
