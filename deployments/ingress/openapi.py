"""OpenAPI document of the HTTP API, made from contracts; fields that it does not name pass to experts."""

from functools import cache
from typing import Any

from deployments.contracts.endpoints import ENDPOINTS, SCHEMAS, Endpoint
from deployments.contracts.routing_options import RoutingOptions
from deployments.contracts.validation import json_schema
from deployments.ingress.feedback import Rating

TITLE = "TO-Router"
ERRORS = {
    "400": "the request is invalid",
    "401": "no valid API key",
    "403": "not allowed with this key",
    "404": "no such model",
    "405": "no such method here",
    "408": "the body arrived too slowly",
    "413": "the body is too large",
    "415": "the content type or the encoding of the body is not supported",
    "429": "a limit of the key, or the queue is full",
    "500": "an internal error",
    "503": "no expert is available now",
    "504": "no response within the deadline",
}
"""Status → meaning; every operation may return each."""
READ_ONLY = {
    "/v1/models": "List of `auto`, the presets and the experts",
    "/health": "Liveness of the ingress",
    "/ready": "Readiness of router and experts",
    "/metrics": "Metrics in the text format of Prometheus",
}


@cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, Any] = {path: {"post": _generate(endpoint)} for path, endpoint in ENDPOINTS.items()}
    chat = ENDPOINTS["/v1/chat/completions"]
    paths["/v1/route"] = {"post": _generate(chat, "The decision for a body, without generation")}
    paths["/v1/feedback"] = {"post": _feedback()}
    for path, summary in READ_ONLY.items():
        paths[path] = {"get": {"summary": summary, "responses": _responses(summary)}}
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    summary = "One model of the list"
    paths["/v1/models/{model}"] = {
        "get": {"summary": summary, "parameters": [name], "responses": _responses(summary)}
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": "1"},
        "paths": paths,
        "components": {
            "schemas": {"Error": _error(), "Routing": json_schema(RoutingOptions)},
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
    usual = f"{endpoint.kind.capitalize()}, by the best expert for the query"
    return {
        "summary": summary or endpoint.summary or usual,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": _responses("The expert's response"),
    }


def _feedback() -> dict[str, Any]:
    return {
        "summary": "Rating of a response",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": json_schema(Rating)}},
        },
        "responses": {"204": {"description": "the rating is accepted"}, **_error_responses()},
    }


def _responses(description: str) -> dict[str, Any]:
    return {"200": {"description": description}, **_error_responses()}


def _error_responses() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": meaning, "content": content} for status, meaning in ERRORS.items()}


def _error() -> dict[str, Any]:
    texts = {"message": {"type": "string"}, "type": {"type": "string"}, "code": {"type": "string"}}
    error = {
        "type": "object",
        "properties": {**texts, "param": {"type": ["string", "null"]}},
        "required": ["message", "type", "param", "code"],
    }
    return {"type": "object", "properties": {"error": error}, "required": ["error"]}
