"""The table of a decision: what the API returned, printed and not computed again."""

import pytest

from deployments.dashboard.explain import dollars, table


def view(score: float | None, cost: float | None, reason: str, *, eligible: bool = True) -> dict[str, object]:
    return {"score": score, "cost_usd": cost, "ttft_ms": None, "eligible": eligible, "reason": reason}


EXPERTS = {
    "a": view(0.9, 2.0, "has the required quality, costs more"),
    "b": view(0.8, 1.0, "cheapest with the required quality"),
    "c": view(None, None, "excluded: too small", eligible=False),
}
DECISION = {"expert": "b", "ranking": ["b", "a"], "reason": "routed", "experts": EXPERTS}


def test_table_prints_the_reason_of_every_expert() -> None:
    lines = table(DECISION, None)

    assert [line.split()[0] for line in lines] == ["→", "a", "c"]
    assert lines[0].endswith("cheapest with the required quality")
    assert lines[1].endswith("has the required quality, costs more")
    assert lines[2].endswith("excluded: too small")


def test_table_marks_the_expert_of_the_answer() -> None:
    assert [line[0] for line in table(DECISION, "a")] == [" ", "→", " "]


def test_table_shows_the_steps_of_a_plan() -> None:
    steps = {"ask": ["a", "b"], "samples": 1, "else": "c", "p_accept": 0.7}
    plan = {**view(0.95, 3.0, "highest predicted quality"), **steps}

    first, *_ = table({**DECISION, "ranking": ["agree", "b", "a"], "plans": {"agree": plan}}, "a")

    assert first.endswith("highest predicted quality; calls a and b, accepts 70% of such answers, else c")


def test_table_leaves_out_what_is_unknown() -> None:
    *_, last = table(DECISION, None)

    assert "----------    –      no price         –" in last


def test_table_lists_an_expert_of_the_ranking_only_with_a_view() -> None:
    assert len(table({**DECISION, "ranking": ["b", "elsewhere", "a"]}, None)) == len(EXPERTS)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "no price"), (0.0, "$0.0000"), (1.5, "$1.5000"), (0.00000140001, "$0.0000014")],
)
def test_dollars_keep_the_digits_that_count(value: float | None, expected: str) -> None:
    assert dollars(value) == expected
