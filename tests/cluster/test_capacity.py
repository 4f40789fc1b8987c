"""The model of a large deployment: plain arithmetic on measured costs."""

import json
from pathlib import Path

import pytest

from cluster.capacity import FIGURES, Load, controller, main, needs, table
from experiments import control_plane

ROW = {
    "experts": 2.0,
    "ingress_routed_ms": 4.0,
    "ingress_chunk_ms": 0.1,
    "front_named_ms": 0.5,
    "front_chunk_ms": 0.01,
    "router_new_query_ms": 3.0,
    "router_known_query_ms": 1.0,
    "idle_controller_share": 0.04,
}
MORE = {**ROW, "experts": 62.0, "idle_controller_share": 0.16}


def test_processors_are_rate_times_cost_over_the_share_that_may_be_used() -> None:
    found = needs([ROW, MORE], Load(rate=1000, tokens=100, used=0.5, known=0.5, gpu_tokens_per_s=1000))

    assert found.ingress == pytest.approx(1000 * (4.0 + 100 * 0.1) / 1000 / 0.5)
    assert found.relaying == pytest.approx(1000 * 100 * 0.1 / 1000 / 0.5)
    assert found.front == pytest.approx(1000 * (0.5 + 100 * 0.01) / 1000 / 0.5)
    assert found.router == pytest.approx(1000 * 2.0 / 1000 / 0.5)
    assert found.gpus == 100
    assert found.connections == 28 * 100


def test_the_controllers_share_is_a_line_through_the_sizes() -> None:
    base, each = controller([ROW, MORE])

    assert base == pytest.approx(0.036)
    assert each == pytest.approx(0.002)
    assert needs([ROW, MORE], Load(used=0.5)).replicas_at_most == pytest.approx((0.5 - base) / each)


def test_without_figures_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--figures", str(tmp_path / "none.json")]) == 2
    assert "control_plane" in capsys.readouterr().err


def test_the_table_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "figures.json").write_text(json.dumps([ROW, MORE]), encoding="utf-8")

    assert main(["--figures", str(tmp_path / "figures.json"), "--rate", "100"]) == 0
    assert "| for 100 requests/s of 200 tokens" in capsys.readouterr().out


def test_the_page_shows_the_committed_figures_and_what_follows_from_them() -> None:
    page = (FIGURES.parent / "scale.md").read_text(encoding="utf-8")
    rows = json.loads(FIGURES.read_text(encoding="utf-8"))

    assert control_plane.table(rows) in page
    assert table(needs(rows, Load()), Load()) in page
