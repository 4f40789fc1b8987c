"""The replica that this process is: its name, its id, its deployment.

Imports Ray only when called, so that modules without Ray can use it. Outside a replica each function but
`served_object` and `replica_path` raises `RayServeException`.
"""

from pathlib import Path
from typing import Any
from urllib.parse import quote


def replica_name() -> str:
    """Return this replica's name as Serve's own logs have it: application, deployment, id."""
    from ray import serve

    replica = serve.get_replica_context().replica_id
    return f"{replica.deployment_id.app_name}#{replica.deployment_id.name}#{replica.unique_id}"


def replica_id() -> str:
    """Return the id that no other replica of the deployment has or had."""
    from ray import serve

    unique_id: str = serve.get_replica_context().replica_id.unique_id
    return unique_id


def replica_deployment() -> tuple[str, str]:
    """Return the names of this replica's deployment and application."""
    from ray import serve

    context = serve.get_replica_context()
    return context.deployment, context.app_name


def served_object() -> Any:
    """Return the object that this process serves as a replica; `None` in a process that is no replica."""
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        return serve.get_replica_context().servable_object
    except RayServeException:
        return None


def replica_path() -> Path | None:
    """Return application and deployment of this replica as a relative path.

    `None` in a process that is no replica.
    """
    from ray.serve.exceptions import RayServeException

    try:
        deployment, app = replica_deployment()
    except RayServeException:
        return None
    return Path(quote(app, safe=""), quote(deployment, safe=""))
