"""The graphs of `waits_served` and its rows; the graphs themselves run in no test."""

from deployments.prior_experts import experts_of_config
from experiments.waits_served import ENGINES, EQUAL, Turn, _row, _share, engines, graph, simulated


def test_the_prior_expects_the_same_of_both_experts() -> None:
    for applications, names in ((engines(), ENGINES), (simulated(), EQUAL)):
        experts = experts_of_config(graph(applications), "here")

        assert tuple(expert.profile.name for expert in experts) == names
        one, other = ((e.facts.total_b, e.facts.year, e.profile.price) for e in experts)
        assert one == other


def test_a_row_counts_prefilled_tokens_and_turns_that_stay() -> None:
    talk = [
        Turn("first", 4.0, 1500, 0, ""),
        Turn("first", 1.0, 1600, 1500, ""),
        Turn("second", 5.0, 1700, 0, ""),
    ]

    cells = _row([talk]).split(" | ")

    assert cells[4:] == ["1100", "50%", "67%"]


def test_the_share_counts_arrivals_of_its_window_alone() -> None:
    calls = [(0.0, "left", 1.0), (1.0, "right", 1.0), (1.5, "left", 1.0), (2.0, "right", 1.0)]

    assert _share(calls, 1.0, 2.0) == 0.5
