"""The commands that measure a local cluster: the graphs they deploy, the tables and plots they write."""

from pathlib import Path

import pytest
import yaml

from cluster.check import check_file
from cluster.local import control_plane, elasticity
from cluster.pools import asks
from cluster.render_groups import groups
from cluster.render_settings import RenderSettings
from tests.cluster.configs import written


@pytest.mark.parametrize("count", [2, 8, 64])
def test_a_graph_of_so_many_experts_has_no_error(count: int, tmp_path: Path) -> None:
    graph = control_plane.config(count)

    file = written(yaml.safe_load(yaml.safe_dump(graph)), tmp_path)
    found = check_file(file, policy=False)

    assert len(graph["applications"]) == count + 1
    assert found == []
    assert [group.name for group in groups(asks(graph), RenderSettings())] == ["cpu"]


def test_the_table_has_a_row_for_each_size() -> None:
    row = {"deploy_s": 1.0, "update_s": 2.0, "add_s": 3.0, "named_ms_p50": 4.0, "auto_ms_p50": 5.0}

    lines = control_plane.table([{"experts": 2, **row}, {"experts": 8, **row}]).splitlines()

    assert lines[2:] == [
        "| 2 | 1.0 s | 2.0 s | 3.0 s | 4.0 ms | 5.0 ms |",
        "| 8 | 1.0 s | 2.0 s | 3.0 s | 4.0 ms | 5.0 ms |",
    ]


def test_replicas_are_drawn_over_time(tmp_path: Path) -> None:
    samples = [{"t_s": t, "clients": 8 * (t > 1), "replicas": {"expert-a": 1 + (t > 2)}} for t in range(5)]

    elasticity.plot(samples, tmp_path / "replicas.png")

    assert (tmp_path / "replicas.png").read_bytes().startswith(b"\x89PNG")
