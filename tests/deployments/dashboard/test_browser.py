"""The chat in a real browser, on the real ingress with fakes behind it."""

from pathlib import Path
from typing import Any

import pytest

from deployments.limits.keys import KeyFile, KeyRing, new_key, write_keys
from deployments.observability import metrics
from router.experts import Price
from tests.deployments.dashboard import browser
from tests.deployments.dashboard.graph import ANSWER_TOKENS, NAMES, PRICES, PROMPT_TOKENS, Graph

PAGES = ("/", "/board", "/policy")


def test_an_answer_streams_and_names_its_expert_and_the_reason(graph: Graph, tab: Any) -> None:
    graph.experts["arithmetic"].pause_s = 0.5
    tab.goto(graph.url)
    tab.fill("#query", browser.SUM)
    tab.click("#send")
    tab.wait_for_selector(".said[aria-busy=true]:has-text('this is')")
    assert "speaking" not in tab.inner_text(".said")

    tab.wait_for_selector(".said[aria-busy=false]")

    turn = tab.locator(".turn")
    assert turn.locator(".said").inner_text() == "this is arithmetic speaking"
    assert turn.locator(".by").inner_text() == "arithmetic"
    why = turn.locator(".why").inner_text()
    assert "0.86" in why
    assert "sums" in turn.locator(".why [data-expert=arithmetic].chosen").inner_text()
    assert "lower utility: 0.90 − 0.30 for cost = 0.60" in why
    cost = PRICES["arithmetic"].cost_usd(PROMPT_TOKENS, ANSWER_TOKENS)
    assert f"20 + 4 tokens · ${cost:.7f}" in turn.inner_text()


def test_prices_are_those_of_the_policy_that_decided(graph: Graph, tab: Any) -> None:
    tab.goto(graph.url)
    browser.ask(tab, browser.SUM)
    graph.swap_policy("ba9876543210", dict.fromkeys(NAMES, Price(1.0, 2.0)))

    turn = browser.ask(tab, browser.SUM)

    assert (
        f"20 + 4 tokens · ${Price(1.0, 2.0).cost_usd(PROMPT_TOKENS, ANSWER_TOKENS):.6f}" in turn.inner_text()
    )


def test_while_one_types_the_decision_is_shown_and_a_slider_moves_it(graph: Graph, tab: Any) -> None:
    tab.goto(graph.url)
    tab.fill("#query", browser.SUM)
    tab.wait_for_selector("#live[data-expert=arithmetic]")

    tab.locator("#cost").fill("0")
    tab.wait_for_selector("#live[data-expert=generalist]")
    assert tab.is_checked("#trade-cost")
    assert "lower predicted quality" in tab.inner_text("#live-experts [data-expert=arithmetic]")
    tab.locator("#cost").fill("80")
    tab.wait_for_selector("#live[data-expert=arithmetic]")
    tab.locator("#quality").fill("0.99")
    tab.wait_for_selector("#live[data-expert=generalist]")
    assert "below the required quality" in tab.inner_text("#live-experts [data-expert=arithmetic]")

    body = tab.locator("#code-python").inner_text() if tab.locator("#copy[open]").count() else None
    assert body is None
    tab.click("#copy summary")
    assert 'extra_body={"routing":{"min_quality":0.99}}' in tab.inner_text("#code-python")
    assert '"min_quality": 0.99' in tab.inner_text("#code-curl")


def test_all_experts_answer_side_by_side(graph: Graph, tab: Any) -> None:
    tab.goto(graph.url)
    tab.check("#all")
    tab.fill("#query", browser.SUM)
    tab.press("#query", "Enter")

    for name in NAMES:
        tab.wait_for_selector(f".answer[data-expert={name}] .said[aria-busy=false]")
        assert tab.inner_text(f".answer[data-expert={name}] .said") == f"this is {name} speaking"
    assert "would have been chosen" in tab.inner_text(".answer[data-expert=arithmetic]")


def test_an_example_of_an_expert_is_sent_by_a_click(graph: Graph, tab: Any) -> None:
    tab.goto(graph.url)
    tab.wait_for_selector("#examples button")
    assert tab.locator("#examples button").all_inner_texts() == [
        "What is 12 + 30?\nsums",
        "Why is the sky blue?\neverything else",
    ]

    tab.click("#examples button:has-text('sums')")

    tab.wait_for_selector(".turn .said[aria-busy=false]")
    assert tab.inner_text(".turn .by") == "arithmetic"
    assert tab.locator("#empty").is_hidden()


def test_the_preferences_line_is_drawn(graph: Graph, tab: Any) -> None:
    tab.goto(graph.url)
    tab.fill("#query", browser.SUM)
    tab.wait_for_selector("#live[data-expert=arithmetic]")
    own = "#live-experts [data-expert=arithmetic] .measures"

    utility = tab.evaluate(f"document.querySelector('{own} .line').style.insetInlineStart")
    tab.locator("#quality").fill("0.8")
    tab.wait_for_selector("#live-line:has-text('requires')")
    required = tab.evaluate(f"document.querySelector('{own} .line').style.insetInlineStart")

    assert float(utility.rstrip("%")) == pytest.approx(100 * (0.86 - 0.3 / 6), abs=0.1)
    assert float(required.rstrip("%")) == pytest.approx(100 * 0.8 * 0.9, abs=0.1)


@pytest.mark.parametrize(
    ("p_right", "expert", "what"),
    [
        (0.9, "arithmetic", "Plan check: arithmetic answered, accepted."),
        (0.1, "generalist", "Plan check: arithmetic answered, not accepted: generalist was called."),
    ],
)
def test_a_plan_is_shown_with_its_steps_and_outcome(
    graph: Graph, tab: Any, p_right: float, expert: str, what: str
) -> None:
    graph.serve_plan(p_right)
    tab.goto(graph.url)
    tab.fill("#query", browser.SUM)
    steps = "calls arithmetic, accepts 75 % of such answers, else generalist"
    tab.wait_for_selector(f"#live:has-text('{steps}')")

    turn = browser.ask(tab, browser.SUM)

    assert turn.locator(f".answer[data-expert={expert}]").count() == 1
    assert what in turn.inner_text()
    drawn = turn.locator("[data-expert=check] .steps li")
    assert drawn.first.inner_text() == "calls arithmetic"
    assert "else generalist" in drawn.last.inner_text()
    assert ("its answer is this one" in drawn.last.inner_text()) == (expert == "generalist")
    assert "were tried" not in turn.inner_text()


def test_an_answer_can_be_rated_once(graph: Graph, tab: Any) -> None:
    before = metrics.registry.get_sample_value("to_router_feedback_quality_count", {"expert": "arithmetic"})
    tab.goto(graph.url)
    turn = browser.ask(tab, browser.SUM)

    turn.locator("button:has-text('Good answer')").click()

    tab.wait_for_selector(".rate:has-text('thank you')")
    assert turn.locator("button:disabled").count() == 2
    after = metrics.registry.get_sample_value("to_router_feedback_quality_count", {"expert": "arithmetic"})
    assert after == (before or 0) + 1


def test_an_error_is_shown_in_words(graph: Graph, tab: Any) -> None:
    for expert in graph.experts.values():
        expert.away = True
    tab.goto(graph.url)

    turn = browser.ask(tab, browser.SUM)

    assert turn.locator(".error").first.inner_text().strip() != ""
    assert turn.locator(".by").inner_text() == "no answer"


def test_with_keys_on_nothing_is_shown_without_one_and_all_with_one(
    graph: Graph, tab: Any, tmp_path: Path
) -> None:
    key, record = new_key("a person")
    write_keys(tmp_path / "keys.json", KeyFile(keys=[record]))
    ring = KeyRing(tmp_path / "keys.json")
    ring.refresh()
    graph.require_keys(ring)

    for path in PAGES:
        tab.goto(f"{graph.url}{path}")
        tab.wait_for_selector("#key-dialog[open]")
        text = tab.inner_text("body")
        assert not any(name in text for name in NAMES), path
    tab.fill("#key-input", key)
    tab.press("#key-input", "Enter")
    tab.wait_for_selector("body[data-policy='0123456789ab']")
    tab.goto(f"{graph.url}/board")
    tab.wait_for_selector("#experts [data-expert=words]")
    tab.goto(graph.url)
    assert "arithmetic" in browser.ask(tab, browser.SUM).locator(".by").inner_text()
    tab.click("#copy summary")
    assert key not in tab.content()
