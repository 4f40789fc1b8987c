"""Which replica of an expert gets a request: the one with its conversation's prefix, else a short queue.

A request router on Serve's public interface, for experts with several replicas: name this class in the
`request_router_config` of their deployment. Serve loads it wherever a handle of the expert is.
"""

import random
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from deployments.contracts.messages import REPLICA_KEY

MOST_RANKS = 3
"""Replicas that are tried for a conversation before Serve waits for a while."""
MOST_BY_MEAN, FEW = 1.5, 4
"""A queue longer than so many times the mean, and a few requests more, is too long to stay in."""


class ReplicaChoice(RequestRouter):
    """Rendezvous hashing with bounded loads for what carries a key; the power of two choices for the rest."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Rank replicas for a request; see `RequestRouter.choose_replicas`."""
        if pending_request is not None:
            # Serve waits before it calls this again; otherwise it would call at once.
            pending_request.routing_context.should_backoff = True
        key = None if pending_request is None else key_of(pending_request.args)
        if key is None:
            return [random.sample(candidate_replicas, min(2, len(candidate_replicas)))]
        replicas = {one.replica_id.unique_id: one for one in candidate_replicas}
        known = self.replica_queue_len_cache
        queues = {name: known.get(one.replica_id) or 0 for name, one in replicas.items()}
        return [[replicas[name]] for name in ranked(key, queues)]


def ranked(key: bytes, queues: Mapping[str, int]) -> list[str]:
    """The replicas of a key, best first: one replica more or less moves only the keys that it has.

    Args:
        key: of the conversation.
        queues: replica → requests that it has.
    """
    most = FEW + MOST_BY_MEAN * sum(queues.values()) / max(1, len(queues))
    names = [name for name, queue in queues.items() if queue <= most]
    names.sort(key=lambda name: blake2b(name.encode(), key=key[:64], digest_size=8).digest())
    return names[:MOST_RANKS]


def key_of(args: Sequence[Any]) -> bytes | None:
    """The key in a call of an expert's `http`; `None` for other calls, and for requests without one."""
    headers = args[2] if len(args) > 2 else ()
    return next((value for name, value in headers if name == REPLICA_KEY), None)
