"""The page in a real browser, on the real ingress with fakes behind it."""

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.limits.keys import KeyFile, KeyRing, new_key, write_keys
from deployments.observability import metrics
from router.experts import Price
from tests.deployments.dashboard import browser
from tests.deployments.dashboard.graph import ANSWER_TOKENS, NAMES, PRICES, PROMPT_TOKENS, Graph

PAGES = ("/", "/board", "/policy")


def number(tab: Any, selector: str, attribute: str = "data-value") -> float:
    return float(tab.locator(selector).get_attribute(attribute))


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


HOSTILE = """
<script>window.hacked = 1</script>

<img src=x onerror=window.hacked=1> <svg onload=window.hacked=1> <form action=/v1/feedback><button>go</button></form>

[js](javascript:window.hacked=1) [data](data:text/html,<script>1</script>) [here](/page/data/board) ![pixel](https://example.com/a.png)

<a href="javascript:window.hacked=1" style="position:fixed;inset:0">cover</a> <iframe src=/></iframe>
""".strip()  # noqa: E501 - Markdown as a model would write it
WIDE_TABLE = "\n".join(["|" + "cell|" * 200, "|" + "---|" * 200, *["|" + "cell|" * 200] * 30])
DEEP_LIST = "\n".join(f"{'- ' * depth}level{depth}" for depth in range(40))
LONG_TEXT = "cell\n\n" * 12_000


def test_a_hostile_answer_is_harmless_and_readable(graph: Graph, tab: Any) -> None:
    graph.experts["arithmetic"].text = HOSTILE
    requests: list[str] = []
    tab.goto(graph.url)
    tab.on("request", lambda request: requests.append(request.url))

    turn = browser.ask(tab, f"1 {HOSTILE}")

    said = turn.locator(".said")
    assert turn.locator(".asked").inner_text() == f"1 {HOSTILE}"
    for line in HOSTILE.splitlines():
        assert line.strip()[:24] in said.inner_text()
    active = "script, img, svg, form, iframe, style, input, [style], [onerror], [onload], [onclick]"
    assert said.locator(active).count() == 0
    links = [link.get_attribute("href") for link in said.locator("a").all()]
    assert links == ["https://example.com/a.png"]  # of the picture, which is not loaded
    assert tab.evaluate("window.hacked") is None
    assert not [url for url in requests if "example.com" in url]


@pytest.mark.parametrize("text", [WIDE_TABLE, DEEP_LIST, LONG_TEXT], ids=["table", "list", "text"])
def test_a_huge_answer_stays_in_its_column(graph: Graph, tab: Any, text: str) -> None:
    graph.experts["arithmetic"].text = text
    tab.set_viewport_size(browser.NARROW)
    tab.goto(graph.url)

    said = browser.ask(tab, browser.SUM).locator(".said")

    assert tab.evaluate("document.documentElement.scrollWidth") <= browser.NARROW["width"]
    assert said.bounding_box()["height"] < 6_000
    words = said.text_content()
    assert words.count("cell") == text.count("cell")
    assert all(f"level{depth}" in words for depth in range(text.count("level")))


MARKDOWN = """
# Heading

Some **bold** and `code`, a [link](https://example.com/a?b=1).

1. one
2. two

| a | b |
|---|:-:|
| 1 | 2 |

```python
def f(x):
    return x < 1
```
""".strip()


def test_markdown_and_code_are_rendered(graph: Graph, tab: Any) -> None:
    graph.experts["arithmetic"].text = MARKDOWN
    tab.goto(graph.url)

    said = browser.ask(tab, browser.SUM).locator(".said")

    assert said.locator("h3").inner_text() == "Heading"
    assert said.locator("strong").inner_text() == "bold"
    assert said.locator("ol li").count() == 2
    assert said.locator("td").all_inner_texts() == ["1", "2"]
    assert said.locator("pre").text_content() == "def f(x):\n    return x < 1\n"
    assert "python" in said.locator(".code").inner_text()
    link = said.locator("a")
    assert link.get_attribute("href") == "https://example.com/a?b=1"
    assert link.get_attribute("rel") == "noopener noreferrer nofollow"


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


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_is_shown_apart_as_text_and_never_sent_back(graph: Graph, tab: Any, field: str) -> None:
    thoughts = [(field, "<b>twelve</b>, "), (field, "then thirty")]
    graph.experts["arithmetic"].thoughts = thoughts
    tab.goto(graph.url)

    turn = browser.ask(tab, browser.SUM)
    browser.ask(tab, "and then")

    assert turn.locator(".said").inner_text() == "this is arithmetic speaking"
    assert turn.locator(".thought").text_content() == "<b>twelve</b>, then thirty"
    assert turn.locator("summary:has-text('Reasoning')").is_visible()
    sent = json.loads(graph.experts["arithmetic"].bodies[-1])["messages"]
    assert [message["content"] for message in sent] == [
        browser.SUM,
        "this is arithmetic speaking",
        "and then",
    ]


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


@pytest.mark.parametrize(
    ("in_use", "quality"),
    [({"cost_weight": 0.3}, "0.8"), ({"cost_weight": 0.01}, "0.9"), ({"min_quality": 0.9}, None)],
    ids=["another weight than the policy's own", "the policy's own", "no weight at all"],
)
def test_the_curve_marks_the_preference_in_use(
    graph: Graph, tab: Any, in_use: dict[str, float], quality: str | None
) -> None:
    row = {"quality": 0.5, "cost_usd": 1e-6}
    points = [(0.0, 0.95, 4e-6), (0.01, 0.9, 3e-6), (0.28, 0.8, 2e-6), (5.0, 0.5, 1e-6)]
    report = {
        "n_queries": 10, "quality_gain": None, "aiq": None, "cost_saved_at_equal_quality": None,
        "curve": [dict(zip(("cost_weight", "quality", "cost_usd"), point, strict=True)) for point in points],
        "policy": {"quality": 0.9, "cost_usd": 3e-6, "preferences": {"cost_weight": 0.01}},
        "experts": {"words": row}, "oracle": row, "random": row,
    }  # fmt: skip
    preferences = {"cost_weight": None, "min_quality": None, **in_use}
    card = {
        "policy_id": "0123456789ab", "preferences": preferences, "report": report, "experts": ["words"],
        "prices": {"words": {"input": 1, "output": 2}},
    }  # fmt: skip
    tab.route("**/page/data/policy", lambda route: route.fulfill(json=card))
    tab.goto(f"{graph.url}/policy")
    tab.wait_for_selector("#curve svg circle")

    table = {
        cells[0].text_content().strip(): cells[1].text_content()
        for line in tab.locator("#curve-table tbody tr").all()
        if (cells := line.locator("th, td").all())
    }
    assert table.get("in use") == quality
    assert ("in use" in tab.locator("#curve svg").text_content()) == (quality is not None)
