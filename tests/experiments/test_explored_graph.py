"""What a log shows of its draws: their share, and whether each repeats from its record alone."""

from dataclasses import replace
from pathlib import Path

from experiments.explored_graph import explored_graph, findings, repeats
from router.core import Exploration
from router.learning.exploration import draw
from router.learning.record import DecisionRecord, ExplorationRecord

SCORES = {"small": 0.8, "large": 0.9}


def record_of(number: int, share: float) -> DecisionRecord:
    found = draw(Exploration(share), f"{number}", chosen="large", scores=SCORES, eligible=list(SCORES))
    return DecisionRecord(
        request_id=f"{number}",
        reason="explored" if found.explored else "routed",
        ranking=("large", "small"),
        scores=SCORES,
        propensities=found.propensities,
        action=found.action,
        exploration=ExplorationRecord(share, 0.9, 0, f"{number}"),
    )


def test_draws_repeat_from_their_records_and_keep_their_share() -> None:
    found = findings([record_of(number, 0.2) for number in range(500)], 0.2)

    assert (found["replays_differ"], found["sums_are_1"]) == (0, True)
    assert found["share_within_binomial_interval"]


def test_another_action_than_the_drawn_one_is_noticed() -> None:
    record = record_of(0, 0.2)

    assert not repeats(replace(record, action="small" if record.action == "large" else "large"))
    assert not repeats(replace(record, propensities=None))


def test_the_default_graph_gets_a_log_and_a_share(tmp_path: Path) -> None:
    graph = explored_graph(tmp_path, share=0.1, floor=0.5)

    parts = {part["name"]: part["user_config"] for part in graph["applications"][0]["deployments"]}
    assert parts["Router"]["explore"] == {"share": 0.1, "quality_floor": 0.5}
    assert parts["Ingress"]["log"] == {"folder": str(tmp_path.resolve()), "queries": True}
