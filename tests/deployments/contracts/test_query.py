"""The text that a policy reads of a conversation."""

import pytest

from deployments.contracts.query import CONTEXT_CHARACTERS, QUERY_CHARACTERS, read_query

SUM = "What is 17 plus 25?"
REMINDER = "<system-reminder>\nThe to-do list is empty.\n</system-reminder>"


def read(*turns: tuple[str, str]) -> str:
    return read_query(turns).text


def test_the_last_user_message_is_the_query() -> None:
    assert read(("system", "be brief"), ("user", "hi"), ("assistant", "hello"), ("user", SUM)) == SUM


def test_a_reminder_after_a_tool_result_is_no_message() -> None:
    loop = [("user", SUM), ("assistant", ""), ("tool", "42"), ("user", REMINDER)]

    assert read(*loop) == SUM


def test_a_human_may_interrupt_a_tool_loop() -> None:
    assert read(("user", SUM), ("tool", "42"), ("user", f"Name the capital of Peru.\n{REMINDER}")) == (
        "Name the capital of Peru."
    )


def test_a_result_written_as_a_user_message_is_not_read() -> None:
    result = "[read_file for 'a.py'] Result:\nprint(1)\n<environment_details>x</environment_details>"

    assert read(("user", f"<task>\n{SUM}\n</task>"), ("assistant", "…"), ("user", result)) == SUM


def test_a_reply_within_a_result_is_read() -> None:
    result = "[attempt_completion] Result:\n<feedback>\nName its capital, Peru's\n</feedback>"

    assert read(("user", SUM), ("user", result)).startswith("Name its capital, Peru's")


def test_every_step_of_a_tool_loop_counts_the_same_turns() -> None:
    start = [("system", "be brief"), ("user", SUM)]
    later = [*start, ("assistant", "calls"), ("tool", "42"), ("user", REMINDER)]

    assert read_query(start) == read_query(later)


@pytest.mark.parametrize("follow_up", ["And of Peru?", "why?", "Translate it to German.", "Et la Belgique ?"])
def test_a_message_that_is_not_clear_alone_has_context(follow_up: str) -> None:
    before = "What is the capital of France?"

    assert read(("user", before), ("assistant", "Paris"), ("user", follow_up)) == f"{follow_up}\n{before}"


def test_context_reaches_back_to_a_message_that_is_self_contained() -> None:
    turns = [("user", "old topic, long gone"), ("user", "What is the capital of France?")]

    assert read(*turns, ("user", "And of Peru?"), ("user", "And of Chile?")) == (
        "And of Chile?\nAnd of Peru?\nWhat is the capital of France?"
    )


def test_context_is_little() -> None:
    text = read(("user", "word " * 1000), ("user", "why?"))

    assert len(text) == len("why?\n") + CONTEXT_CHARACTERS


def test_without_a_humans_words_the_last_user_turn_is_read() -> None:
    assert read(("user", REMINDER)) == REMINDER
    assert read(("system", "say hello")) == "say hello"
    assert read() == ""


def test_a_query_is_bounded() -> None:
    assert len(read(("user", "word " * 10_000))) <= QUERY_CHARACTERS
