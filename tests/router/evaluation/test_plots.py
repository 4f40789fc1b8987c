"""Plots are PNG files, with and without known costs."""

from pathlib import Path
from typing import Any

import pytest

from router.evaluation.plots import plot_curves, plot_traffic

PNG = b"\x89PNG"


def figures(*, cost: float | None) -> dict[str, Any]:
    def point(quality: float, factor: float = 1.0) -> dict[str, Any]:
        return {"quality": quality, "cost_usd": None if cost is None else factor * cost}

    return {
        "experts": {"small": point(0.5), "large": point(0.8, 10)},
        "curve": [{"cost_weight": 0.0, **point(0.85, 9)}, {"cost_weight": 1.0, **point(0.6, 2)}],
        "policy": point(0.8, 5),
        "random": point(0.65, 5),
        "oracle": point(0.9, 6),
        "told_the_task": None,
        "aiq": None if cost is None else 0.7,
        "traffic": {"small": 0.4, "large": 0.6},
    }


@pytest.mark.parametrize("cost", [None, 1e-4])
def test_curves_are_drawn_with_and_without_costs(tmp_path: Path, cost: float | None) -> None:
    plot_curves(tmp_path / "curve.png", {"knn": figures(cost=cost)})

    assert (tmp_path / "curve.png").read_bytes().startswith(PNG)


def test_traffic_is_drawn(tmp_path: Path) -> None:
    plot_traffic(tmp_path / "traffic.png", figures(cost=None))

    assert (tmp_path / "traffic.png").read_bytes().startswith(PNG)
