"""Decisions on their way back count as load, for a short time."""

from deployments.routing.in_transit import TRANSIT_S, InTransit
from router.core import Decision


def test_the_last_decisions_count_until_they_have_arrived() -> None:
    now = 0.0
    transit = InTransit(lambda: now)
    transit.add([Decision(("a", "b"), {}, "id"), Decision((), {}, "id"), Decision(("a",), {}, "id")])

    assert transit.counts() == {"a": 2}
    now += 2 * TRANSIT_S
    assert not transit.counts()
