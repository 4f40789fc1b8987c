"""Signals of answers: agreement, majority, certainty, completeness."""

import pytest

from router.plans.plan import Plan
from router.plans.signals import at_hand, read, read_beginning, signals_of

PAIR = Plan("pair", ("a", "b"), "c", 0.8)
VOTE = Plan("vote", ("a",), "c", 0.8, samples=3)


def test_two_members_agree_on_equal_final_answers() -> None:
    same = signals_of(PAIR, [read("Answer: 7"), read(r"\boxed{7.0}")], score=0.6)
    other = signals_of(PAIR, [read("Answer: 7"), read("Answer: 8")], score=0.6)
    silent = signals_of(PAIR, [read(""), read("")], score=0.6)

    assert (same.agreement, other.agreement, silent.agreement) == (1.0, 0.0, 0.0)
    assert (same.has_answer, silent.has_answer, same.score) == (True, False, 0.6)


def test_a_vote_returns_a_member_of_the_majority() -> None:
    readings = [read("Answer: 1"), read("Answer: 2"), read("so <answer>2</answer>")]

    assert at_hand(VOTE, readings) == 1
    assert signals_of(VOTE, readings, score=None).agreement == pytest.approx(2 / 3)
    assert at_hand(VOTE, [read(""), read(""), read("")]) == 0


def test_log_probabilities_give_certainty() -> None:
    sure = read("yes", logprobs=[-1.0, -0.5, *[0.0] * 8])
    unknown = read("yes", logprobs=[])

    assert (sure.mean_logprob, sure.least_logprob, sure.final_logprob) == (-0.15, -1.0, 0.0)
    assert unknown.mean_logprob is None


def test_the_beginning_is_read_by_its_log_probabilities_alone() -> None:
    plan = Plan("check", ("a",), "c", 0.8, hold_tokens=2)

    signals = signals_of(plan, [read_beginning([-1.0, -3.0, -9.0], 2)], score=0.5)

    assert (signals.mean_logprob, signals.characters, signals.has_answer) == (-2.0, None, None)


def test_a_cut_off_answer_and_an_apology_are_seen() -> None:
    cut, whole = read("and so", finish_reason="length"), read("I'm sorry, but no", finish_reason="stop")

    assert (cut.complete, whole.complete, read("x").complete) == (False, True, None)
    assert (cut.refused, whole.refused) == (False, True)
