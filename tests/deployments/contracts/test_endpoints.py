"""Every row of the table of endpoints is readable, described and generated."""

import pytest

from deployments.contracts.endpoints import ENDPOINTS, SCHEMAS, Endpoint
from deployments.contracts.requests import endpoint_of
from deployments.contracts.turns import READERS
from deployments.ingress.openapi import document
from deployments.simulated import bodies

ROWS = [pytest.param(endpoint, id=endpoint.kind) for endpoint in ENDPOINTS.values()]


def test_kinds_and_paths_are_unique() -> None:
    assert len({endpoint.kind for endpoint in ENDPOINTS.values()}) == len(ENDPOINTS)
    assert all(path == endpoint.path for path, endpoint in ENDPOINTS.items())


@pytest.mark.parametrize("endpoint", ROWS)
def test_every_form_has_a_reader_and_a_schema(endpoint: Endpoint) -> None:
    body = document()["paths"][endpoint.path]["post"]["requestBody"]["content"]["application/json"]["schema"]

    assert endpoint.form in READERS
    assert body["properties"][endpoint.query_field] == SCHEMAS[endpoint.form]


@pytest.mark.parametrize("endpoint", [row for row in ROWS if row.values[0].streams])
def test_the_simulated_expert_ends_streams_as_the_table_says(endpoint: Endpoint) -> None:
    script = bodies.Script("a", (bodies.Completion(("w",), (-0.1,)),), 1)
    events = [event for _, event in bodies.events(endpoint.kind, script)]

    assert any(line in events[-1] for line in endpoint.last_lines)
    assert not any(line in event for line in endpoint.last_lines for event in events[:-1])


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "/v1/chat/completions"),
        ({"messages": []}, "/v1/chat/completions"),
        ({"messages": [], "system": "x"}, "/v1/messages"),
        ({"prompt": "x"}, "/v1/completions"),
        ({"input": "x"}, "/v1/responses"),
        ({"input": [{"role": "user"}]}, "/v1/responses"),
        ({"input": ["x"]}, "/v1/embeddings"),
        ({"input": "x", "dimensions": 8}, "/v1/embeddings"),
    ],
)
def test_a_body_is_matched_to_its_endpoint(body: dict[str, object], path: str) -> None:
    assert endpoint_of(body).path == path
