"""A plan is readable YAML, and one that makes no sense is named."""

from pathlib import Path
from typing import Any

import pytest

from router.errors import PlanError
from router.plans.plan import Plan, check_plans, load_plans

TEXT = """
plans:
  - {name: agree, ask: [small, code], accept: {at_least: 0.85}, else: large}
  - {name: check, ask: [small], accept: {at_least: 0.9, hold: {tokens: 16}}, else: large}
  - {name: vote, ask: [small], samples: 3, accept: {at_least: 0.8}, else: large}
"""


def test_plans_are_read_from_yaml_and_written_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "plans.yaml").write_text(TEXT, encoding="utf-8")

    agree, check, vote = load_plans(tmp_path / "plans.yaml")

    assert agree == Plan("agree", ("small", "code"), "large", 0.85)
    assert (check.hold_tokens, vote.samples, vote.is_vote) == (16, 3, True)
    assert (agree.most_answers, vote.most_answers) == (3, 4)
    for plan in (agree, check, vote):
        assert Plan.from_json(plan.to_json()) == plan


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "three": ({"ask": ["a", "b", "d"]}, "one or two different experts"),
    "twice": ({"ask": ["a", "a"]}, "one or two different experts"),
    "none": ({"ask": []}, "one or two different experts"),
    "else": ({"else": "a"}, "`else` must be another expert"),
    "threshold": ({"accept": {"at_least": 1.5}}, "a probability in"),
    "votes": ({"samples": 3}, "above 1 with one expert"),
    "samples": ({"ask": ["a"], "samples": 99}, "from 1 to 8"),
    "hold": ({"accept": {"at_least": 0.5, "hold": {"tokens": 4}}}, "one answer of one expert"),
    "key": ({"then": "a"}, "then: unknown key"),
    "missing": ({"accept": None}, "accept"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_plan_that_makes_no_sense_is_named(case: str) -> None:
    change, reason = BAD[case]
    good = {"name": "p", "ask": ["a", "b"], "accept": {"at_least": 0.5}, "else": "c"}

    with pytest.raises(PlanError, match="'p'") as caught:
        Plan.from_json(good | change)

    assert reason in str(caught.value)


def test_names_are_unique_and_experts_known() -> None:
    plan = Plan("p", ("a",), "b", 0.5)

    check_plans([plan], ["a", "b"])
    with pytest.raises(PlanError, match="'p' is taken"):
        check_plans([plan, plan])
    with pytest.raises(PlanError, match="'a' is taken"):
        check_plans([Plan("a", ("a",), "b", 0.5)], ["a", "b"])
    with pytest.raises(PlanError, match="names 'b', which is not in the candidate pool"):
        check_plans([plan], ["a"])


@pytest.mark.parametrize("text", ["", "plans: {}", "plans: [7]", "a: [", "plans: [{name: p}]"])
def test_a_file_without_plans_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "plans.yaml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(PlanError, match=r"plans\.yaml"):
        load_plans(file)
