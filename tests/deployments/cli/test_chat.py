"""`to-router chat` against the real ingress with fakes behind it."""

import json
from pathlib import Path

import pytest

from deployments.cli.chat_output import printable
from deployments.limits.keys import KeyFile, KeyRing, new_key, write_keys
from router.cli import main
from router.experts import Price
from tests.deployments.dashboard.graph import ANSWER_TOKENS, NAMES, PRICES, PROMPT_TOKENS, Graph

SUM = "What is 12 + 30?"


def chat(graph: Graph, *arguments: str) -> int:
    return main(["chat", "--url", graph.url, *arguments])


def test_the_answer_comes_with_the_reasons(graph: Graph, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat(graph, SUM) == 0

    output = capsys.readouterr().out
    assert output.startswith("this is arithmetic speaking\n— arithmetic · first byte")
    assert "20 + 4 tokens · $0.0000014" in output
    assert "highest utility: 0.86 − 0.05 for cost = 0.81" in output
    assert "lower utility: 0.90 − 0.30 for cost = 0.60" in output


def test_a_preference_changes_the_expert(graph: Graph, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat(graph, "--json", "--cost-weight", "0", SUM) == 0

    output = json.loads(capsys.readouterr().out)
    assert output["expert"] == "generalist"
    assert output["cost_usd"] == pytest.approx(PRICES["generalist"].cost_usd(PROMPT_TOKENS, ANSWER_TOKENS))
    assert output["decision"]["ranking"][0] == "generalist"


def test_all_experts_answer_in_turn(graph: Graph, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat(graph, "--all", SUM) == 0

    output = capsys.readouterr().out
    assert all(f"this is {name} speaking" in output for name in NAMES)
    assert "arithmetic (would be chosen):" in output


def test_a_conversation_goes_on_and_starts_over(
    graph: Graph, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter([SUM, "and then", "/new", "and then", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))

    assert chat(graph) == 0

    answered = [line for line in capsys.readouterr().out.splitlines() if line.startswith("— ")]
    # The second query has the sum before it; the third is alone, and has no digit.
    assert [line.split()[1] for line in answered] == ["arithmetic", "arithmetic", "words"]


def test_an_unavailable_expert_is_reported(graph: Graph, capsys: pytest.CaptureFixture[str]) -> None:
    graph.experts["arithmetic"].away = True

    assert chat(graph, SUM) == 0

    output = capsys.readouterr().out
    assert "2 experts were tried: arithmetic gave no answer" in output
    assert "→ generalist" in output


def test_an_answer_cannot_steer_the_terminal(graph: Graph, capsys: pytest.CaptureFixture[str]) -> None:
    graph.experts["arithmetic"].text = "red \x1b[31m\x9b2J \u202eback\r\x07 end\n\ttab"

    chat(graph, SUM)

    output = capsys.readouterr().out
    assert "red [31m2J back end\n\ttab" in output
    assert not set("\x1b\x9b\u202e\r\x07") & set(output)
    assert printable("zürich 日本 🙂 é") == "zürich 日本 🙂 é"


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_is_shown_apart_and_never_sent_back(
    graph: Graph, field: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.experts["arithmetic"].thoughts = [(field, "twelve, "), (field, "then thirty")]
    lines = iter([SUM, "and then", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))

    assert chat(graph) == 0

    output = capsys.readouterr().out
    assert "[reasoning]\ntwelve, then thirty\n[answer]\nthis is arithmetic speaking\n" in output
    sent = json.loads(graph.experts["arithmetic"].bodies[-1])["messages"]
    assert [message["content"] for message in sent] == [SUM, "this is arithmetic speaking", "and then"]


def test_prices_are_those_of_the_policy_that_decided(
    graph: Graph, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lines(prompt: str) -> str:
        prompts.append(prompt)
        if len(prompts) == 2:
            graph.swap_policy("ba9876543210", dict.fromkeys(NAMES, Price(1.0, 2.0)))
        return SUM if len(prompts) < 3 else "/quit"

    prompts: list[str] = []
    monkeypatch.setattr("builtins.input", lines)

    assert chat(graph) == 0

    output = [line for line in capsys.readouterr().out.splitlines() if line.startswith("— ")]
    assert "$0.0000014" in output[0]
    assert "$0.000028" in output[1]


def test_a_key_is_required_and_used(
    graph: Graph, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, record = new_key("a person")
    write_keys(tmp_path / "keys.json", KeyFile(keys=[record]))
    ring = KeyRing(tmp_path / "keys.json")
    ring.refresh()
    graph.require_keys(ring)
    monkeypatch.delenv("TO_ROUTER_KEY", raising=False)

    assert chat(graph, SUM) == 2
    assert "401" in (output := capsys.readouterr().err)
    assert "TO_ROUTER_KEY" in output
    monkeypatch.setenv("MINE", key)
    assert chat(graph, "--key-env", "MINE", SUM) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--url", "http://127.0.0.1:9", SUM], "no response from http://127.0.0.1:9"),
        (["--json"], "--json needs one TEXT"),
        (["--model", "unknown", SUM], "404: the model 'unknown' does not exist"),
        (["--min-quality", "7", SUM], "400"),
    ],
)
def test_bad_input_gets_one_clear_line(
    graph: Graph, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(graph, *arguments) == 2

    output = capsys.readouterr().err
    assert expected in output
    assert output.count("\n") == 1


def test_without_a_page_it_still_explains(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.deployments.dashboard.graph import serving

    with serving(page=False) as graph:
        assert chat(graph, SUM) == 0

    output = capsys.readouterr().out
    assert "20 + 4 tokens\n" in output
    assert "lower utility: 0.90 − 0.30 for cost = 0.60" in output
