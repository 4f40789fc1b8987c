"""Hostile clients: their requests, and the limits of what they may cost others."""

import argparse
import json
from typing import Any

import pytest

from load_tests.hostile import CASES, missed_by


def report(idle: float, under: float, most_mb: float) -> dict[str, Any]:
    return {
        "path": "/health",
        "failed": 0,
        "idle_ms": {"p50": idle, "p99": idle},
        "under_ms": {"p50": under, "p99": under},
        "memory_mb": {":Ingress": {"before": 100.0, "most": most_mb, "after": 100.0}},
    }


def test_limits_that_hold_say_nothing() -> None:
    assert missed_by(report(10, 20, 299), most_added_ms=100, most_ratio=2, most_growth=200) == []


def test_each_limit_that_was_exceeded_is_reported() -> None:
    failing = report(10, 120, 350) | {"failed": 3}
    missed = missed_by(failing, most_added_ms=100, most_ratio=2, most_growth=200)

    assert missed == [
        "3 requests of /health failed",
        "p99 of /health rose by 110 ms, the limit is 100",
        "the median of /health rose 12.00 times, the limit is 2",
        ":Ingress grew by 250 MB, the limit is 200",
    ]


@pytest.mark.parametrize("case", ["arrays", "string"])
def test_large_bodies_are_json_of_about_the_given_size(case: str) -> None:
    options = argparse.Namespace(url="http://127.0.0.1:8000", model="auto", key="", mib=0.5)
    head, body = CASES[case](options)

    assert json.loads(body)["model"] == "auto"
    assert abs(len(body) - 2**19) < 64
    assert f"content-length: {len(body)}".encode() in head


def test_readers_and_slow_headers_are_valid_as_far_as_they_come() -> None:
    options = argparse.Namespace(url="http://127.0.0.1:8000", model="auto", key="", mib=0.5)

    assert json.loads(CASES["readers"](options)[1])["stream"] is True
    assert not CASES["headers"](options)[0].endswith(b"\r\n\r\n")
