"""Requests of one conversation recognise each other, and others do not."""

import pytest

from deployments.contracts.conversation import UNKNOWN, conversation_of

HI, HELLO, MORE = ("user", "hi"), ("assistant", "hello"), ("user", "more")


def test_a_later_turn_names_the_one_before() -> None:
    first, second = conversation_of([HI]), conversation_of([HI, HELLO, MORE])

    assert not first.before
    assert second.before == first.here
    assert second.here != first.here


def test_a_tool_loop_stays_at_its_user_turn() -> None:
    asked = conversation_of([HI, HELLO, MORE])
    loop = conversation_of([HI, HELLO, MORE, ("assistant", ""), ("tool", "42")])

    assert loop.in_tool_loop
    assert not asked.in_tool_loop
    assert loop.here == asked.here


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([HI, ("assistant", "a"), MORE], [HI, ("assistant", "b"), MORE]),
        ([("user", "ab"), ("user", "c")], [("user", "a"), ("user", "bc")]),
        ([("system", "x"), HI], [HI]),
    ],
)
def test_other_turns_are_another_conversation(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    assert conversation_of(one).here != conversation_of(other).here


def test_the_clients_name_in_the_body_comes_first() -> None:
    body = conversation_of([HI], "a")

    assert body.named("b") == body
    assert conversation_of([HI]).named("a").name == body.name
    assert conversation_of([HI]).named(None).name == conversation_of([HI], 7).name == b""


def test_all_later_turns_go_to_one_replica() -> None:
    second = conversation_of([HI, HELLO, MORE])
    third = conversation_of([HI, HELLO, MORE, HELLO, MORE])

    assert conversation_of([HI]).replica_key("k") is None
    assert second.replica_key("k") == third.replica_key("k") is not None
    assert second.replica_key("k") != second.replica_key("other")
    assert conversation_of([HI], "a").replica_key("k") == conversation_of([MORE], "a").replica_key("k")


def test_without_a_user_turn_there_is_no_conversation() -> None:
    assert conversation_of([("system", "x")]) == UNKNOWN
