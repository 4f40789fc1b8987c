"""A detached Ray actor that all replicas share by its name, and a replica's connection to it.

It starts with the first call, wherever that comes from, and outlives replicas and redeploys.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

import ray
import ray.exceptions

from deployments.contracts.blocking_calls import BlockingCalls

NAMESPACE = "to-router"


class NamedActor:
    """Connection of one replica.

    Args:
        kind: the actor's class.
        name: the actor's name.
        args: of its constructor.
    """

    def __init__(self, kind: type[Any], name: str, *args: Any) -> None:
        self._kind, self._name, self._args = kind, name, args
        self._actor: Any = None
        self._starts = BlockingCalls(name)

    async def call(self, method: str, argument: Any, timeout_s: float) -> Any:
        """Call a method of the actor.

        Raises:
            TimeoutError: no response in time.
            ConnectionError: the actor does not respond.
        """
        try:
            async with asyncio.timeout(timeout_s):
                if self._actor is None:
                    self._actor = await self._starts.run(self._start, timeout_s=timeout_s)
                return await getattr(self._actor, method).remote(argument)
        except ray.exceptions.ActorDiedError as error:
            self._actor = None
            raise ConnectionError(type(error).__name__) from error
        except (ray.exceptions.RayError, ValueError) as error:
            raise ConnectionError(type(error).__name__) from error

    def _start(self) -> Any:
        options = {
            "name": self._name,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "num_cpus": 0,
            "max_restarts": -1,
            "max_concurrency": 100,
            "label_selector": _own_labels(ray.get_runtime_context().get_node_labels()),
        }
        return ray.remote(self._kind).options(**options).remote(*self._args)


def actor_name(prefix: str, file: str) -> str:
    """Return an actor's name, one for each file: no actor takes another file's state for its own."""
    return f"{prefix}-{hashlib.sha256(file.encode()).hexdigest()[:8]}"


def _own_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of a node without Ray's own: the pool of the caller, whose nodes hold its files."""
    return {name: value for name, value in labels.items() if not name.startswith("ray.io/")}
