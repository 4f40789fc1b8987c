"""Validate Kubernetes objects offline.

Built-in kinds against Kubernetes' own schemas, others against the pinned definitions in `schemas/` (each
names its source).

Rejects unknown fields, which a server would drop silently, and what KubeRay's own validation rejects in
addition to its schema.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cluster.check.manifest import doubled_resources

SCHEMAS = Path(__file__).with_name("schemas")
KUBERNETES = "1.32"


def errors_of(thing: Mapping[str, Any]) -> list[str]:
    """Return the errors of one object.

    Needs `kubernetes-validate` and `jsonschema` of the extra `test`.
    """
    import jsonschema
    import kubernetes_validate

    name = f"{thing.get('kind')} {(thing.get('metadata') or {}).get('name')}"
    group = str(thing.get("apiVersion", "")).rpartition("/")[0]
    if not (group == "" or group.endswith(".k8s.io") or "." not in group) or _is_pinned(thing):
        schema = _pinned(str(thing.get("kind")), str(thing.get("apiVersion")))
        if schema is None:
            return [f"{name}: no schema of {thing.get('apiVersion')} {thing.get('kind')} is pinned"]
        validator = jsonschema.Draft202012Validator(schema)
        errors = [f"{name}: {e.json_path}: {e.message:.300}" for e in validator.iter_errors(dict(thing))]
        cluster = (thing.get("spec") or {}).get("rayClusterConfig") or {}
        return errors + [f"{name}: {key}: {message}" for key, message in doubled_resources(cluster)]
    try:
        kubernetes_validate.validate(dict(thing), KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{name}: {error}"]
    return []


def _is_pinned(thing: Mapping[str, Any]) -> bool:
    return _pinned(str(thing.get("kind")), str(thing.get("apiVersion"))) is not None


@cache
def _pinned(kind: str, api_version: str) -> dict[str, Any] | None:
    file = SCHEMAS / f"{kind}.json"
    if not file.is_file():
        return None
    data = json.loads(file.read_text(encoding="utf-8"))
    if f"{data['group']}/{data['version']}" != api_version:
        return None
    closed: dict[str, Any] = _closed(data["schema"])
    closed["properties"]["metadata"] = {"type": "object"}
    return closed


def _closed(schema: Any) -> Any:
    """Return the same schema without unknown fields."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        key: {name: _closed(one) for name, one in value.items()} if key == "properties" else _closed(value)
        for key, value in schema.items()
    }
    if "properties" in closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed
