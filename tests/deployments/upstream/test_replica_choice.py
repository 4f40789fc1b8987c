"""Later turns stay at a replica while its queue is short; the rest goes by queues alone."""

from collections import Counter

from ray.serve.config import RequestRouterConfig

from deployments.contracts.messages import REPLICA_KEY
from deployments.upstream.replica_choice import MOST_RANKS, ReplicaChoice, key_of, ranked

IDLE = dict.fromkeys(("a", "b", "c", "d"), 0)
KEYS = [f"conversation {number}".encode() for number in range(400)]


def test_a_key_is_read_from_the_headers_of_a_call() -> None:
    headers = ((b"accept", b"*/*"), (REPLICA_KEY, b"k"))

    assert key_of(("POST", "/v1/chat/completions", headers, b"")) == b"k"
    assert key_of(("POST", "/v1/chat/completions", headers[:1], b"")) is None
    assert key_of(()) is None


def test_keys_are_spread_and_each_stays() -> None:
    firsts = Counter(ranked(key, IDLE)[0] for key in KEYS)

    assert min(firsts.values()) > 60
    assert len(ranked(KEYS[0], IDLE)) == MOST_RANKS
    assert [ranked(key, IDLE) for key in KEYS[:9]] == [ranked(key, IDLE) for key in KEYS[:9]]


def test_a_replica_that_goes_moves_only_its_keys() -> None:
    left = {name: 0 for name in IDLE if name != "d"}
    moved = [key for key in KEYS if ranked(key, IDLE)[0] != ranked(key, left)[0]]

    assert {ranked(key, IDLE)[0] for key in moved} == {"d"}


def test_a_long_queue_is_left() -> None:
    busy = {**IDLE, "a": 40}

    assert all("a" not in ranked(key, busy) for key in KEYS)
    assert any(ranked(key, {**IDLE, "a": 3})[0] == "a" for key in KEYS)


def test_serve_loads_the_class_by_its_path() -> None:
    path = f"{ReplicaChoice.__module__}.{ReplicaChoice.__name__}"
    config = RequestRouterConfig(request_router_class=path)

    assert config.get_request_router_class() is ReplicaChoice
