"""Processes that grow, end too large or fail requests are reported."""

from typing import Any

from load_tests.memory import missed_by


def row(requests: int, ingress: float, failed: int = 0) -> dict[str, Any]:
    return {"requests": requests, "failed": failed, ":Ingress": ingress}


def test_memory_that_rises_in_the_first_slice_only_is_flat() -> None:
    rows = [row(0, 100), row(10, 180), row(20, 185)]

    assert missed_by(rows, [":Ingress"], [200], 20) == []


def test_growth_size_and_failures_are_each_reported() -> None:
    rows = [row(0, 100), row(10, 180), row(20, 260, failed=3)]

    missed = missed_by(rows, [":Ingress"], [250], 20)
    assert missed == [
        "3 requests failed",
        ":Ingress ended at 260 MB, the limit is 250",
        ":Ingress grew by 80 MB after the first slice, the limit is 20",
    ]
