"""The draw: its probabilities are what happens, and the same unit draws the same."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core import Decision, ExpertView, Exploration
from router.errors import InputError
from router.learning.exploration import draw, draw_for, explored

SCORES = {"small": 0.80, "code": 0.78, "large": 0.82, "weak": 0.3}


def test_frequencies_match_the_logged_probabilities() -> None:
    exploration = Exploration(0.2, 0.9, seed=3)
    n = 20_000
    draws = [
        draw(exploration, f"unit {i}", chosen="small", scores=SCORES, eligible=list(SCORES)) for i in range(n)
    ]

    expected = draws[0].propensities
    assert set(expected) == {"small", "code", "large"}
    assert all(one.propensities == expected for one in draws)
    for name, probability in expected.items():
        spread = math.sqrt(probability * (1 - probability) / n)
        assert abs(sum(one.action == name for one in draws) / n - probability) < 4 * spread
    assert abs(sum(one.explored for one in draws) / n - 0.2) < 4 * math.sqrt(0.2 * 0.8 / n)


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 2**40),
    st.text(),
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), min_size=1),
    st.data(),
)
def test_probabilities_sum_to_one_and_cover_the_action(
    share: float, floor: float, seed: int, unit: str, scores: dict[str, float], data: st.DataObject
) -> None:
    chosen = data.draw(st.sampled_from([*scores, "a plan"]))

    found = draw(Exploration(share, floor, seed), unit, chosen=chosen, scores=scores, eligible=list(scores))

    assert math.isclose(sum(found.propensities.values()), 1.0)
    assert found.propensities[found.action] > 0
    bar = floor * max(scores.values())
    assert found.action == chosen or scores[found.action] >= bar - 1e-9
    again = draw(Exploration(share, floor, seed), unit, chosen=chosen, scores=scores, eligible=list(scores))
    assert found == again


def test_a_conversation_keeps_its_expert_while_it_is_a_candidate() -> None:
    exploration = Exploration(1.0, 0.9)
    for number in range(50):
        unit = f"conversation {number}"
        first = draw(exploration, unit, chosen="small", scores=SCORES, eligible=list(SCORES)).action
        fewer = [name for name in SCORES if name == first or name == "large"]

        assert draw(exploration, unit, chosen="large", scores=SCORES, eligible=fewer).action == first


def test_without_a_share_nothing_is_drawn() -> None:
    found = draw(Exploration(0.0), "unit", chosen="small", scores=SCORES, eligible=list(SCORES))

    assert (found.action, found.explored, dict(found.propensities)) == ("small", False, {"small": 1.0})


def test_ineligible_experts_and_plans_are_never_drawn() -> None:
    views = {name: ExpertView(score, None, None, name != "large") for name, score in SCORES.items()}
    decision = Decision(("cascade", "small", "code", "weak"), views, "0123456789ab")

    for number in range(100):
        found = draw_for(Exploration(1.0, 0.9), f"{number}", decision)
        assert set(found.propensities) == {"small", "code"}
        assert found.action in {"small", "code"}


def test_no_expert_below_the_required_quality_is_drawn() -> None:
    views = {name: ExpertView(score, None, None, True) for name, score in SCORES.items()}
    required = max(SCORES.values())
    decision = Decision(tuple(SCORES), views, "0123456789ab", required_score=required)

    for number in range(100):
        found = draw_for(Exploration(1.0, 0.0), f"{number}", decision)
        assert SCORES[found.action] == required


def test_a_plan_that_is_chosen_keeps_the_rest_of_the_probability() -> None:
    views = {name: ExpertView(score, None, None, True) for name, score in SCORES.items()}
    decision = Decision(("cascade", "small", "code", "large", "weak"), views, "0123456789ab")

    found = draw_for(Exploration(0.3, 0.9), "unit", decision)

    assert found.propensities == pytest.approx({"cascade": 0.7, "small": 0.1, "code": 0.1, "large": 0.1})


@pytest.mark.parametrize("values", [(1.1, 0.9), (-0.1, 0.9), (0.1, 1.5), (math.nan, 0.9)])
def test_shares_outside_their_range_are_bad_input(values: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="must be in"):
        Exploration(*values)


def test_a_drawn_expert_comes_first_and_the_others_keep_their_order() -> None:
    views = {name: ExpertView(score, None, None, True) for name, score in SCORES.items()}
    decision = Decision(("small", "code", "large", "weak"), views, "0123456789ab")

    found = [explored(Exploration(1.0, 0.9), f"{number}", decision) for number in range(20)]

    assert {one.ranking for one in found} == {
        ("small", "code", "large", "weak"),
        ("code", "small", "large", "weak"),
        ("large", "small", "code", "weak"),
    }
    assert all(one.draw is not None and one.draw.action == one.ranking[0] for one in found)


def test_a_decision_without_eligible_expert_is_not_drawn() -> None:
    decision = Decision((), {}, "0123456789ab")

    assert explored(Exploration(1.0), "unit", decision) is decision
