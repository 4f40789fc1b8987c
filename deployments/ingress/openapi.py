"""The description of the HTTP API that `/openapi.json` publishes; what it leaves open passes to experts."""

from functools import cache
from typing import Any

from deployments.contracts.endpoints import ENDPOINTS, SCHEMAS, Endpoint
from deployments.contracts.routing_options import routing_schema
from deployments.ingress.feedback import LONGEST_COMMENT

TITLE = "TO-Router"
REFUSALS = {
    "400": "bad request",
    "401": "no valid API key",
    "403": "not allowed with this key",
    "404": "no such model",
    "405": "no such method here",
    "408": "the body came too slowly",
    "413": "the body is too large",
    "429": "a key's limit, or the queue is full",
    "500": "a fault of this system",
    "503": "no expert can answer now",
    "504": "no answer within the deadline",
}


@cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, Any] = {path: {"post": _generate(endpoint)} for path, endpoint in ENDPOINTS.items()}
    paths["/v1/route"] = {
        "post": _generate(ENDPOINTS["/v1/chat/completions"], "What the same body would do, without doing it")
    }
    paths["/v1/feedback"] = {"post": _feedback()}
    for path, told in {
        "/v1/models": "auto, the presets and the experts",
        "/health": "the ingress lives",
        "/ready": "router and experts can answer",
        "/metrics": "metrics in the text format of Prometheus",
    }.items():
        paths[path] = {"get": {"summary": told, "responses": _responses(told)}}
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    told = "one of them"
    paths["/v1/models/{model}"] = {
        "get": {"summary": told, "parameters": [model], "responses": _responses(told)}
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": "1"},
        "paths": paths,
        "components": {
            "schemas": {"Error": _error(), "Routing": routing_schema()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _generate(endpoint: Endpoint, summary: str | None = None) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "model": {"type": "string", "minLength": 1, "examples": ["auto"]},
            endpoint.query_field: SCHEMAS[endpoint.form],
            "stream": {"type": "boolean"},
            "max_tokens": {"type": "integer", "minimum": 0},
            "routing": {"$ref": "#/components/schemas/Routing"},
        },
        "required": ["model", endpoint.query_field],
        "additionalProperties": True,
    }
    return {
        "summary": summary or f"{endpoint.kind}, answered by the best expert for it",
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": _responses("the expert's answer"),
    }


def _feedback() -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "request_id": {"type": "string", "minLength": 1, "description": "the x-request-id of an answer"},
            "quality": {"type": "number", "minimum": 0, "maximum": 1},
            "comment": {"type": ["string", "null"], "maxLength": LONGEST_COMMENT},
        },
        "required": ["request_id", "quality"],
        "additionalProperties": False,
    }
    refusals = {status: told for status, told in _responses("").items() if status != "200"}
    return {
        "summary": "rate an answer",
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"204": {"description": "taken"}, **refusals},
    }


def _responses(told: str) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    refusals = {status: {"description": why, "content": error} for status, why in REFUSALS.items()}
    return {"200": {"description": told}, **refusals}


def _error() -> dict[str, Any]:
    texts = {"message": {"type": "string"}, "type": {"type": "string"}, "code": {"type": "string"}}
    error = {
        "type": "object",
        "properties": {**texts, "param": {"type": ["string", "null"]}},
        "required": ["message", "type", "param", "code"],
    }
    return {"type": "object", "properties": {"error": error}, "required": ["error"]}
