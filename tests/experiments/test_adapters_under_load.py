"""Which answers under load count as wrong or stale."""

from experiments.adapters_under_load import AFTER, FIRST, SECOND, Load

QUERY = "Spell the word river."
OWN = {QUERY: {"words": "r", FIRST: "a", SECOND: "b", AFTER: "c"}}


def load() -> Load:
    made = Load("", OWN, [FIRST], {FIRST: [FIRST], SECOND: [SECOND]})
    made.judge(FIRST, QUERY, "a", began=0.0)
    made.weights[FIRST].append(AFTER)
    return made


def test_old_weights_are_stale_only_after_an_answer_of_the_new_ones() -> None:
    trial = load()
    trial.judge(FIRST, QUERY, "a", began=1.0)
    before = dict(trial.problems)
    trial.judge(FIRST, QUERY, "c", began=2.0)
    in_between = trial.newest_at[FIRST]
    trial.judge(FIRST, QUERY, "a", began=in_between - 1)
    trial.judge(FIRST, QUERY, "a", began=in_between + 1)

    assert before == {}
    assert trial.problems == {f"stale: {FIRST}": 1}
    assert trial.by_new_weights == 1


def test_an_answer_of_other_weights_is_wrong() -> None:
    trial = load()
    trial.judge(SECOND, QUERY, "c", began=1.0)
    trial.judge(SECOND, QUERY, "z", began=1.0)

    assert trial.problems == {f"wrong: {SECOND}: as {AFTER}": 1, f"wrong: {SECOND}: as none": 1}
