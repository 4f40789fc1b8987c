"""The one rule that turns scores and costs into rankings."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from router.core import Decision, ExpertView, FloatArray, Preferences
from router.decide import ROUNDING, as_decisions, decide, reasons
from router.errors import PreferenceError

SHAPE = st.tuples(st.integers(1, 6), st.integers(1, 5))
UNIT = st.floats(0, 1, width=32)


@st.composite
def tables(draw: st.DrawFn) -> tuple[FloatArray, FloatArray, FloatArray]:
    shape = draw(SHAPE)
    scores = draw(arrays.arrays(np.float64, shape, elements=UNIT))
    costs = draw(arrays.arrays(np.float64, shape, elements=UNIT))
    eligible = draw(arrays.arrays(np.bool_, shape))
    return scores, costs, eligible


@given(tables(), st.floats(0, 100))
def test_the_best_has_the_highest_utility_of_the_eligible(
    table: tuple[FloatArray, FloatArray, FloatArray], weight: float
) -> None:
    scores, costs, eligible = table
    ranked = decide(scores, costs, preferences=Preferences(cost_weight=weight), eligible=eligible)
    for row in range(len(scores)):
        order = ranked.row(row)
        assert sorted(order) == np.flatnonzero(eligible[row]).tolist()
        if not order:
            continue
        dearest = costs[row][eligible[row]].max()
        relative = costs[row] / dearest if dearest > 0 else np.zeros_like(costs[row])
        utility = scores[row] - weight * relative
        assert utility[order[0]] == pytest.approx(utility[eligible[row]].max())
        assert all(utility[a] >= utility[b] - 1e-9 for a, b in pairwise(order))


@given(tables(), st.sampled_from([Preferences(cost_weight=0.5), Preferences(min_quality=0.7), Preferences()]))
def test_all_eligible_is_as_no_list_of_eligible_ones(
    table: tuple[FloatArray, FloatArray, FloatArray], preferences: Preferences
) -> None:
    scores, costs, eligible = table
    plain = decide(scores, costs, preferences=preferences)
    listed = decide(scores, costs, preferences=preferences, eligible=np.ones_like(eligible))

    np.testing.assert_array_equal(plain.order, listed.order)
    np.testing.assert_array_equal(plain.eligible, listed.eligible)
    np.testing.assert_array_equal(plain.required, listed.required)


@given(tables(), UNIT)
def test_min_quality_takes_the_cheapest_above_the_bar(
    table: tuple[FloatArray, FloatArray, FloatArray], fraction: float
) -> None:
    scores, costs, eligible = table
    ranked = decide(scores, costs, preferences=Preferences(min_quality=fraction), eligible=eligible)
    for row in range(len(scores)):
        order = ranked.row(row)
        if not order:
            continue
        bar = fraction * scores[row][eligible[row]].max() - ROUNDING
        above = [column for column in np.flatnonzero(eligible[row]) if scores[row, column] >= bar]
        assert costs[row, order[0]] == min(costs[row, column] for column in above)
        assert set(order[: len(above)]) == set(above)


def test_cost_weight_zero_is_best_quality_and_ties_go_to_the_cheaper_then_the_first() -> None:
    scores = np.array([[0.5, 0.5, 0.4], [0.5, 0.5, 0.5]])
    costs = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    ranked = decide(scores, costs, preferences=Preferences(cost_weight=0))

    assert ranked.row(0) == [1, 0, 2]
    assert ranked.row(1) == [0, 1, 2]


def test_costs_are_relative_to_the_most_expensive_eligible() -> None:
    scores, costs = np.array([[0.9, 0.8, 0.1]]), np.array([[2.0, 1.0, 100.0]])
    within = decide(
        scores, costs, preferences=Preferences(cost_weight=0.5), eligible=np.array([[True, True, False]])
    )
    among_all = decide(scores, costs, preferences=Preferences(cost_weight=0.5))

    assert within.row(0) == [1, 0]
    assert among_all.row(0)[0] == 0


def test_an_unknown_cost_counts_as_the_most_expensive() -> None:
    ranked = decide(np.array([[0.5, 0.5]]), np.array([[np.nan, 1.0]]), preferences=Preferences(cost_weight=1))

    assert ranked.row(0) == [1, 0] or ranked.row(0) == [0, 1]
    assert (
        ranked.best[0]
        == decide(
            np.array([[0.5, 0.5]]), np.array([[1.0, 1.0]]), preferences=Preferences(cost_weight=1)
        ).best[0]
    )


def test_rows_have_preferences_of_their_own() -> None:
    scores, costs = np.tile([0.9, 0.8], (2, 1)), np.tile([10.0, 1.0], (2, 1))
    ranked = decide(scores, costs, preferences=[Preferences(cost_weight=0), Preferences(cost_weight=1)])

    assert ranked.best.tolist() == [0, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cost_weight": -1.0},
        {"cost_weight": float("nan")},
        {"min_quality": 1.5},
        {"max_cost_usd": float("inf")},
        {"cost_weight": 1.0, "min_quality": 0.5},
    ],
)
def test_preferences_out_of_range_are_rejected(wrong: dict[str, float]) -> None:
    with pytest.raises(PreferenceError):
        Preferences(**wrong)


def test_set_preferences_override_the_default() -> None:
    default = Preferences(min_quality=0.9, max_cost_usd=1.0)

    assert Preferences(cost_weight=0.5).over(default) == Preferences(cost_weight=0.5, max_cost_usd=1.0)
    assert Preferences(max_cost_usd=2.0).over(default) == Preferences(min_quality=0.9, max_cost_usd=2.0)


def view(score: float | None, penalty: float = 0.0, why: str | None = None) -> ExpertView:
    utility = None if score is None else score - penalty
    return ExpertView(score, 1.0, None, why is None, why, utility, penalty)


def test_reasons_give_the_terms_of_the_utility() -> None:
    views = {"a": view(0.9, 0.2), "b": view(0.5, 0.1), "c": view(0.9, 0.0, "circuit breaker open")}

    assert reasons(Decision(("a", "b"), views, "id")) == {
        "a": "highest utility: 0.90 − 0.20 for cost = 0.70",
        "b": "lower utility: 0.50 − 0.10 for cost = 0.40",
        "c": "excluded: circuit breaker open",
    }


def test_reasons_without_costs_name_the_predicted_quality() -> None:
    assert reasons(Decision(("a", "b"), {"a": view(0.9), "b": view(0.5)}, "id")) == {
        "a": "highest predicted quality",
        "b": "lower predicted quality",
    }


def test_reasons_without_scores_name_the_static_ranking() -> None:
    assert reasons(Decision(("b", "a"), {"a": view(None), "b": view(None)}, "id")) == {
        "a": "later in the static ranking",
        "b": "first in the static ranking",
    }


def test_reasons_tolerate_rounding_like_the_rule() -> None:
    """0.9 × 0.7 is not quite 0.63: the expert that the rule takes is not called too weak."""
    scores, costs = np.array([[0.7, 0.63, 0.5]]), np.array([[3.0, 1.0, 0.5]])
    preferences = Preferences(min_quality=0.9)
    (decision,) = as_decisions(
        decide(scores, costs, preferences=preferences),
        scores,
        costs,
        np.full((1, 3), np.nan),
        names=("large", "small", "weak"),
        exclusions=[{}],
        preferences=[preferences],
        policy_id="id",
        unfamiliar=[False],
    )

    assert decision.ranking == ("small", "large", "weak")
    assert reasons(decision) == {
        "large": "has the required quality, costs more",
        "small": "cheapest with the required quality",
        "weak": "below the required quality: 0.50, required 0.63",
    }
    assert decision.experts["small"].utility == 0.63
    assert decision.experts["small"].ttft_ms is None


def test_seconds_take_their_weight_off_the_utility() -> None:
    scores, seconds = np.array([[0.9, 0.8, 0.7]]), np.array([[4.0, 1.0, np.nan]])
    ranked = decide(scores, None, preferences=Preferences(latency_weight=0.1), seconds=seconds)

    assert ranked.row(0) == [1, 0, 2]
    assert ranked.utility[0].tolist() == pytest.approx([0.5, 0.7, 0.45])  # an unknown time: the mean


@given(tables(), UNIT)
def test_seconds_without_a_weight_change_nothing(
    table: tuple[FloatArray, FloatArray, FloatArray], fraction: float
) -> None:
    scores, costs, eligible = table
    for preferences in (Preferences(cost_weight=fraction), Preferences(min_quality=fraction)):
        plain = decide(scores, costs, preferences=preferences, eligible=eligible)
        timed = decide(scores, costs, preferences=preferences, eligible=eligible, seconds=1 + scores)
        assert timed.order.tolist() == plain.order.tolist()
        assert timed.utility.tolist() == plain.utility.tolist()


def test_among_those_with_the_required_quality_time_counts() -> None:
    scores, costs, seconds = np.array([[0.9, 0.8]]), np.array([[2.0, 1.0]]), np.array([[1.0, 9.0]])
    preferences = Preferences(min_quality=0.5, latency_weight=0.1)
    ranked = decide(scores, costs, preferences=preferences, seconds=seconds)

    assert ranked.row(0) == [0, 1]
    assert ranked.row(0) != decide(scores, costs, preferences=Preferences(min_quality=0.5)).row(0)
