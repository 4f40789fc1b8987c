"""The chat's printing: headings, errors, numbers."""

import io

import pytest

from deployments.cli.chat_client import Answer
from deployments.cli.chat_output import ChatOutput, numbers, printable


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def test_reasoning_and_answer_have_headings_only_together(out: io.StringIO) -> None:
    output = ChatOutput(out)

    for text, reasoning in (("", "one"), ("", "two"), ("three", ""), ("four", "")):
        output.reasoning(reasoning)
        output.text(text)
    output.end(Answer("a", 1, "routed"))
    output.text("five")

    assert out.getvalue() == "[reasoning]\nonetwo\n[answer]\nthreefour\nfive"


def test_error_of_an_answer_cannot_control_the_terminal(out: io.StringIO) -> None:
    ChatOutput(out).end(Answer("a", 1, "routed", error="broken\x1b[2J"))

    assert out.getvalue() == "\n[broken[2J]\n"


def test_numbers_leave_out_what_is_unknown() -> None:
    answer = Answer("a", 1, "routed", first_s=0.1, total_s=0.25)

    assert numbers(answer, None) == "first byte 100 ms, total 250 ms"
    answer.usage = {"prompt_tokens": 3, "completion_tokens": 2}
    assert numbers(answer, 0.5) == "first byte 100 ms, total 250 ms · 3 + 2 tokens · $0.5000"


@pytest.mark.parametrize(
    ("accepted", "text"), [(True, "a answered, accepted"), (False, "a answered, not accepted: c was called")]
)
def test_a_plan_is_explained(accepted: bool, text: str, out: io.StringIO) -> None:
    view = {"score": 0.5, "cost_usd": None, "ttft_ms": None, "reason": "first"}
    plan = {**view, "ask": ["a"], "samples": 1, "else": "c", "p_accept": 0.5}
    decision = {
        "expert": "a",
        "ranking": ["check"],
        "experts": {"a": view, "c": view},
        "plans": {"check": plan},
    }

    ChatOutput(out).explain(decision, Answer("a", 2, "routed", plan="check", accepted=accepted), None)

    assert f"plan check: {text}" in out.getvalue()


def test_printable_keeps_letters_of_every_script() -> None:
    assert printable("zürich 日本 🙂 é\n\t") == "zürich 日本 🙂 é\n\t"
    assert printable("\x1b\x9b\u202e\r\x07") == ""
