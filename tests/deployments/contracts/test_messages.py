"""Values between processes arrive as they were sent."""

import pickle  # noqa: TID251 - the trip between processes is Ray's, and it pickles

import pytest

from deployments.contracts.messages import RouterResponse
from router.core import Decision, ExpertView, Preferences, RouteRequest

VIEW = ExpertView(
    0.5, 1e-6, None, eligible=False, excluded_because="not today", utility=0.4, cost_penalty=0.1
)
PREFERENCES = Preferences(min_quality=0.9, max_ttft_ms=100.0)


@pytest.mark.parametrize(
    "value",
    [
        RouteRequest("sum", PREFERENCES, {"a": "not today"}, 12, 34, {"b": 5.0}),
        RouterResponse(Decision(("b",), {"a": VIEW}, "0123", True, PREFERENCES, 0.8), "no reason"),
        RouterResponse(None, "no policy"),
    ],
)
def test_a_value_survives_the_trip(value: object) -> None:
    assert pickle.loads(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)) == value  # noqa: S301 - our own bytes


def test_a_view_is_sent_without_its_fields_names() -> None:
    assert b"excluded_because" not in pickle.dumps(VIEW)
