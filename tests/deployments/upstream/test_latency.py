"""Learnt latencies, and the timeouts that follow from them."""

import pytest

from deployments.upstream.latency import (
    MIN_CONNECT_TIMEOUT_S,
    MIN_OBSERVATIONS,
    TIMEOUT_FACTOR,
    TOKENS_FACTOR,
    LatencyEstimate,
)


def test_the_timeout_is_configured_until_it_is_learnt() -> None:
    latency = LatencyEstimate()
    for _ in range(MIN_OBSERVATIONS - 1):
        latency.observe("streaming", 1.0)
    before = latency.attempt_timeout_s("streaming", 120)
    latency.observe("streaming", 1.0)

    assert before == 120
    assert latency.attempt_timeout_s("streaming", 120) == 8.0
    assert latency.attempt_timeout_s("non_streaming", 120) == 120
    assert latency.ttft_ms == 1000


def test_a_replica_that_was_slow_to_connect_gets_more_time() -> None:
    latency = LatencyEstimate()
    assert latency.connect_timeout_s() == MIN_CONNECT_TIMEOUT_S

    for _ in range(50):
        latency.observe("streaming", 4.0, connected_s=2.0)

    assert latency.connect_timeout_s() == pytest.approx(TIMEOUT_FACTOR * 2.0)


def test_the_timeout_of_a_whole_completion_grows_with_its_tokens() -> None:
    latency = LatencyEstimate()
    for _ in range(MIN_OBSERVATIONS):
        latency.observe("non_streaming", 1.0, completion_tokens=10)

    assert latency.attempt_timeout_s("non_streaming", 120, 100) == 30
    assert latency.attempt_timeout_s("non_streaming", 120, 4000) == pytest.approx(TOKENS_FACTOR * 400)
    assert latency.attempt_timeout_s("non_streaming", 120, None) == 120
