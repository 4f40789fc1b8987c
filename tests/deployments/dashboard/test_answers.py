"""Answers in a real browser: Markdown is rendered, hostile text is harmless and readable."""

import json
from typing import Any

import pytest

from tests.deployments.dashboard import browser
from tests.deployments.dashboard.graph import Graph

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
