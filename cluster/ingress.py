"""The ingress of a serve_config.yaml from outside: whether it can be reached, its keys, its deadline.

Pure; takes any object that YAML can hold, because `check` reads it before it knows whether the file is valid.
"""

import math
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Any

from cluster.packing import BUILD_APP
from deployments.config import REQUEST_TIMEOUT_S

LAST_BYTES_S = 30.0
"""From a request's deadline until its error response has reached the client."""


def is_exposed(host: object) -> bool:
    """Whether a listener at this address can be reached from other machines."""
    text = str(host)
    if text == "localhost":
        return False
    try:
        return not ip_address(text).is_loopback
    except ValueError:
        return True


def user_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the `user_config` of the ingress; empty if there is none."""
    deployments = _application(config).get("deployments")
    for deployment in deployments if isinstance(deployments, list) else []:
        if isinstance(deployment, Mapping) and deployment.get("name") == "Ingress":
            return _mapping(deployment.get("user_config"))
    return {}


def key_file(config: Mapping[str, Any]) -> str | None:
    """Return the file of API keys as configured, or `None` if every client is served."""
    file = _mapping(user_config(config).get("keys")).get("file")
    return file if isinstance(file, str) else None


def serves_anonymous(config: Mapping[str, Any]) -> bool:
    """Whether the configuration states that clients without a key are served wherever they come from."""
    return user_config(config).get("allow_anonymous") is True


def counts_file(config: Mapping[str, Any]) -> str | None:
    """Return the file of the counts of keys, as configured or its default; `None` without keys."""
    keys = key_file(config)
    counts = _mapping(user_config(config).get("keys")).get("counts")
    if keys is None:
        return None
    return counts if isinstance(counts, str) else str(PurePosixPath(keys).with_suffix(".counts.json"))


def log_folder(config: Mapping[str, Any]) -> str | None:
    """Return the folder of the decision log as configured, or `None` where no log with a folder is kept."""
    folder = _mapping(user_config(config).get("log")).get("folder")
    return folder if isinstance(folder, str) else None


def request_timeout_s(config: Mapping[str, Any]) -> float:
    """Return the deadline of a request: the longest that a response may take."""
    args = _mapping(_mapping(_application(config).get("args")).get("ingress"))
    seconds = args.get("request_timeout_s", REQUEST_TIMEOUT_S)
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    return float(seconds) if is_number and math.isfinite(seconds) else REQUEST_TIMEOUT_S


def longest_response_s(config: Mapping[str, Any]) -> int:
    """Return how long a connection may be in use: nothing may end it earlier on purpose.

    HAProxy's hard stop, the grace of replicas and pods, and the deletion of an old cluster follow from it.
    """
    return math.ceil(request_timeout_s(config) + LAST_BYTES_S)


def _application(config: Mapping[str, Any]) -> Mapping[str, Any]:
    applications = config.get("applications")
    for app in applications if isinstance(applications, list) else []:
        if isinstance(app, Mapping) and app.get("import_path") == BUILD_APP:
            return app
    return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
