"""The `routing` object: what it accepts, and which field an error names."""

from typing import Any

import pytest

from deployments.config import PreferenceSettings
from deployments.contracts.errors import BadRequest, ErrorCode
from deployments.contracts.routing_options import (
    DEFAULT,
    PREFERENCES,
    PreferenceFields,
    RoutingOptions,
    parse_routing,
)
from deployments.contracts.validation import json_schema
from router.core import Preferences


def test_every_preference_of_the_router_is_a_field() -> None:
    assert set(PREFERENCES) == PreferenceFields.model_fields.keys() == PreferenceSettings.model_fields.keys()
    assert tuple(RoutingOptions.model_fields) >= PREFERENCES


def test_options_become_preferences_of_the_router() -> None:
    options = parse_routing({"cost_weight": 1, "max_ttft_ms": 200.5, "experts": ["a"], "exclude": None})

    assert options.as_preferences() == Preferences(cost_weight=1.0, max_ttft_ms=200.5)
    assert (options.experts, options.exclude) == (("a",), ())
    assert parse_routing(None) is DEFAULT


@pytest.mark.parametrize(
    ("block", "code", "param"),
    [
        ([], ErrorCode.INVALID_TYPE, "routing"),
        ({"speed": 1, "cost_weight": "x"}, ErrorCode.UNKNOWN_FIELD, "routing.speed"),
        ({"x" * 1000: 1}, ErrorCode.UNKNOWN_FIELD, "routing." + "x" * 64),
        ({"cost_weight": True}, ErrorCode.INVALID_TYPE, "routing.cost_weight"),
        ({"min_quality": "1"}, ErrorCode.INVALID_TYPE, "routing.min_quality"),
        ({"min_quality": 2}, ErrorCode.INVALID_VALUE, "routing"),
        ({"cost_weight": 1, "min_quality": 1}, ErrorCode.INVALID_VALUE, "routing"),
        ({"timeout_s": 0}, ErrorCode.INVALID_VALUE, "routing.timeout_s"),
        ({"fallback": 1}, ErrorCode.INVALID_TYPE, "routing.fallback"),
        ({"priority": None}, ErrorCode.INVALID_VALUE, "routing.priority"),
        ({"experts": "a"}, ErrorCode.INVALID_TYPE, "routing.experts"),
        ({"exclude": [1]}, ErrorCode.INVALID_TYPE, "routing.exclude"),
    ],
)
def test_an_invalid_field_is_named(block: Any, code: ErrorCode, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_routing(block)

    assert (caught.value.code, caught.value.param) == (code, param)
    assert len(str(caught.value)) < 400


def test_the_schema_describes_every_field() -> None:
    schema = json_schema(RoutingOptions)

    assert schema["additionalProperties"] is False
    assert all(field["description"] for field in schema["properties"].values())


@pytest.mark.parametrize("field", ["experts", "exclude"])
def test_lists_of_experts_are_bounded(field: str) -> None:
    with pytest.raises(BadRequest) as error:
        parse_routing({field: ["a"] * 1025})

    assert (error.value.code, error.value.param) == (ErrorCode.INVALID_VALUE, f"routing.{field}")
    assert len(str(error.value)) < 200
