"""The OpenAPI document follows from the tables in contracts."""

from deployments.contracts.routing_options import RoutingOptions
from deployments.ingress.openapi import ERRORS, document


def test_every_endpoint_describes_its_errors() -> None:
    operations = [operation for path in document()["paths"].values() for operation in path.values()]

    assert all(ERRORS.keys() <= operation["responses"].keys() for operation in operations)


def test_the_routing_object_is_that_of_the_parser() -> None:
    properties = document()["components"]["schemas"]["Routing"]["properties"]

    assert properties.keys() == RoutingOptions.model_fields.keys()


def test_a_rating_has_its_fields_and_no_others() -> None:
    body = document()["paths"]["/v1/feedback"]["post"]["requestBody"]["content"]["application/json"]["schema"]

    assert body["required"] == ["request_id", "quality"]
    assert body["additionalProperties"] is False
