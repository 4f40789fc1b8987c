"""Board in a real browser, on the real ingress with fakes behind it."""

from typing import Any

import pytest

from tests.deployments.dashboard import browser
from tests.deployments.dashboard.graph import ANSWER_TOKENS, PRICES, PROMPT_TOKENS, Graph


def number(tab: Any, selector: str, attribute: str = "data-value") -> float:
    return float(tab.locator(selector).get_attribute(attribute))


GAP = """async (path) => {
  const { growth, parse, seen, sum } = await import(path);
  const now = [{ a: 10, b: 500 }, { a: 12 }, { a: 14, b: 503 }, { a: 16, b: 504, c: 7 }].map((replicas) =>
    parse(Object.entries(replicas).map(([name, n]) => `seen_total{replica="${name}"} ${n}`).join("\\n")));
  const until = [];
  now.forEach((series, at) => until.push(seen(at ? until[at - 1] : new Map(), series, at, at - 100)));
  return [1, 2, 3].map((at) => sum(growth(until[at - 1], now[at]), "seen_total"));
}"""


def test_a_replica_that_was_left_out_counts_only_what_it_did_meanwhile(graph: Graph, tab: Any) -> None:
    tab.goto(f"{graph.url}/board")
    path = tab.evaluate(
        "performance.getEntriesByType('resource').map((r) => r.name).find((n) => n.includes('metrics'))"
    )

    assert tab.evaluate(GAP, path) == [2, 2 + 3, 2 + 1 + 7]


def test_an_expert_that_is_away_is_seen_in_the_attempts_and_on_the_board(graph: Graph, tab: Any) -> None:
    graph.experts["arithmetic"].away = True
    tab.goto(f"{graph.url}/board")
    tab.wait_for_selector("body[data-views]")
    other = tab.context.new_page()
    other.set_default_timeout(5_000)
    other.goto(graph.url)

    text = browser.ask(other, browser.SUM).inner_text()
    for _ in range(5):
        browser.ask(other, browser.SUM)

    assert "2 experts were tried: arithmetic gave no answer; generalist answered." in text
    tab.bring_to_front()
    tab.wait_for_selector("#experts [data-expert=arithmetic] .breaker.bad")
    assert "unavailable" in tab.inner_text("#experts [data-expert=arithmetic]")
    assert "arithmetic: circuit breaker" in tab.inner_text("#news")


def test_the_board_counts_what_a_load_sent(graph: Graph, tab: Any) -> None:
    tab.goto(f"{graph.url}/board")
    tab.wait_for_selector("body[data-views]")
    browser.load(tab, graph.url, 40)

    tab.wait_for_selector("#end-200[data-value='40']")

    row = "#experts [data-expert=arithmetic]"
    cost = PRICES["arithmetic"].cost_usd(PROMPT_TOKENS, ANSWER_TOKENS)
    assert number(tab, row, "data-answers") == 40
    assert number(tab, row, "data-share") == 1
    assert number(tab, "#spent") == pytest.approx(40 * cost)
    most_expensive = PRICES["generalist"].cost_usd(PROMPT_TOKENS, ANSWER_TOKENS)
    assert number(tab, "#most-expensive") == pytest.approx(40 * most_expensive)
    assert number(tab, "#single") == pytest.approx(40 * most_expensive)
    assert 0 < number(tab, "#first-p50") <= number(tab, "#first-p95")


def board_data(at: float, count: int) -> dict[str, Any]:
    return {
        "at": at, "policy_id": None, "best_single": None, "plans": [], "experts": {},
        "router": {"ready": True, "why": ""},
        "metrics": f'to_router_requests_total{{outcome="200",replica="a"}} {count}',
    }  # fmt: skip


def test_the_board_joins_the_servers_history_with_its_own(graph: Graph, tab: Any) -> None:
    series = {'to_router_requests_total{outcome="200"}': [2, 3]}
    opened = {**board_data(120, 50), "history": {"at": [0, 110, 120], "series": series}}
    tab.route("**/page/data/board?history=1", lambda route: route.fulfill(json=opened))
    tab.route("**/page/data/board", lambda route: route.fulfill(json=board_data(122, 51)))

    tab.goto(f"{graph.url}/board")

    tab.wait_for_selector("#end-200[data-value='5']")
    tab.wait_for_selector("#end-200[data-value='6']")
    assert float(tab.get_attribute("#rate", "data-value")) == pytest.approx(6 / 122)
    tab.select_option("#window", "10")
    assert tab.get_attribute("#end-200", "data-value") == "1"


def test_the_board_of_a_fresh_graph_has_no_empty_panel(graph: Graph, tab: Any) -> None:
    tab.goto(f"{graph.url}/board")
    tab.wait_for_selector("body[data-views]")

    assert tab.is_visible("#none")
    assert tab.locator("main section:visible h2").all_inner_texts() == ["Experts"]
    browser.load(tab, graph.url, 1)
    tab.wait_for_selector("#end-200[data-value='1']")
    assert tab.is_hidden("#none")


def test_the_board_compares_accepted_plans_with_the_prediction(graph: Graph, tab: Any) -> None:
    graph.serve_plan(0.9)
    tab.goto(f"{graph.url}/board")
    tab.wait_for_selector("#plans:visible")
    browser.load(tab, graph.url, 2)

    tab.wait_for_selector("#plans td:text-is('2')")
    assert tab.locator("#plans tbody tr").first.inner_text().split("\t")[1:4] == ["2", "100.0 %", "75.0 %"]


def test_the_board_shows_an_expert_scaled_to_zero(graph: Graph, tab: Any) -> None:
    state = graph.api.registry.experts["words"].state
    state.running, state.scaled_to_zero = 0, True

    tab.goto(f"{graph.url}/board")

    tab.wait_for_selector("#experts [data-expert=words]:has-text('scaled to zero')")


def test_the_board_shows_a_canary_that_runs(graph: Graph, tab: Any) -> None:
    data = board_data(120, 50)
    data["metrics"] += """
to_router_canary{state="running",replica="a"} 1
to_router_canary{state="over",replica="a"} 0
"""
    opened = {
        **data,
        "history": {
            "at": [0, 120],
            "series": {
                'to_router_arm_requests_total{arm="canary",result="success"}': [3],
                'to_router_arm_requests_total{arm="canary",result="failure"}': [1],
                'to_router_arm_quality_sum{arm="canary"}': [1.5],
                'to_router_arm_quality_count{arm="canary"}': [2],
            },
        },
    }
    tab.route("**/page/data/board*", lambda route: route.fulfill(json=opened))
    tab.goto(f"{graph.url}/board")

    tab.wait_for_selector("#canary:visible")
    assert "The canary is running." in tab.inner_text("#canary")
    first = tab.locator("#canary tbody tr").first.inner_text()
    assert first.split("\t") == ["canary", "4", "75.0 %", "0.75"]
