"""Who a replica is. Imports Ray only when asked, so that modules which do without it can ask."""


def name_of_replica() -> str:
    """This replica's name, as Serve's own logs have it: application, deployment, its own id."""
    from ray import serve

    found = serve.get_replica_context().replica_id
    return f"{found.deployment_id.app_name}#{found.deployment_id.name}#{found.unique_id}"
