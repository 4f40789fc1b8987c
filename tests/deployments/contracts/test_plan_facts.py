"""What plans must know of a request, whatever its body holds."""

from typing import Any

import pytest

from deployments.contracts.plan_facts import PlanFacts

RESULT = {"type": "tool_result", "content": "4"}
SAID = {"role": "user", "content": "2 + 2?"}


@pytest.mark.parametrize(
    ("body", "has_results"),
    [
        ({"messages": [SAID]}, False),
        ({"messages": [SAID, {"role": "tool", "content": "4"}]}, True),
        ({"messages": [{"role": "user", "content": [RESULT]}]}, True),
        ({"input": [{"type": "function_call_output", "output": "4"}]}, True),
        ({"input": "2 + 2?"}, False),
    ],
)
def test_results_of_tools_are_noticed(body: dict[str, Any], has_results: bool) -> None:
    assert PlanFacts.of(body).has_tool_results is has_results


@pytest.mark.parametrize("odd", [None, [], {}, [{}], 1.5, True, "x", [[1]], {"type": []}])
def test_odd_values_of_any_field_are_read(odd: Any) -> None:
    names = ("logprobs", "top_logprobs", "temperature", "seed", "tools", "response_format")
    messages = [{"role": odd, "type": odd, "content": odd}, {"content": [odd, {"type": odd}]}, odd]

    facts = PlanFacts.of({**dict.fromkeys(names, odd), "messages": messages, "input": messages})

    assert not facts.has_tool_results


@pytest.mark.parametrize(
    ("body", "wanted"),
    [({}, False), ({"logprobs": False}, False), ({"logprobs": 0}, True), ({"top_logprobs": 2}, True)],
)
def test_log_probabilities_of_the_client_are_noticed(body: dict[str, Any], wanted: bool) -> None:
    assert PlanFacts.of(body).has_logprobs is wanted
