"""The commands that measure a local cluster: the graphs they deploy, the tables and plots they write."""

from pathlib import Path

import pytest
import yaml

from cluster.check.config import check_file
from cluster.kuberay.settings import RenderSettings
from cluster.kuberay.worker_groups import worker_groups
from cluster.packing import demands
from experiments import control_plane, elasticity
from router.policy import Policy
from tests.cluster.configs import written


@pytest.mark.parametrize("count", [2, 8, 64])
def test_a_graph_of_so_many_experts_has_no_error(count: int, tmp_path: Path) -> None:
    graph = control_plane.config(count, tmp_path / "policy")

    file = written(yaml.safe_load(yaml.safe_dump(graph)), tmp_path)
    found = check_file(file, policy=False)

    assert len(graph["applications"]) == count + 1
    assert found == []
    assert [group.name for group in worker_groups(demands(graph), RenderSettings())] == ["ingress", "experts"]


def test_the_table_has_a_column_for_each_size_and_the_plot_a_point(tmp_path: Path) -> None:
    row = dict.fromkeys(control_plane.TABLE.values(), 0.5)
    rows = [{"experts": 2, **row}, {"experts": 8, **row}]

    lines = control_plane.table(rows).splitlines()
    control_plane.plot(rows, tmp_path / "figures.png")

    assert lines[0] == "| experts | 2 | 8 |"
    assert "| deploy all, s | 0.50 | 0.50 |" in lines
    assert "| controller, idle, % of a core | 50.00 | 50.00 |" in lines
    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")


def test_a_policy_scores_every_expert_of_the_graph(tmp_path: Path) -> None:
    folder = control_plane.policy(3, tmp_path / "policy")

    assert Policy.load(folder).pool.names == ("e0", "e1", "e2")
    assert control_plane.policy(3, folder) == folder


def test_replicas_are_drawn_over_time(tmp_path: Path) -> None:
    samples = [{"t_s": t, "clients": 8 * (t > 1), "replicas": {"expert-a": 1 + (t > 2)}} for t in range(5)]
    events = [{"t_s": 1.0, "event": "8 clients ask"}]

    elasticity.plot(samples, events, tmp_path / "replicas.png")

    assert (tmp_path / "replicas.png").read_bytes().startswith(b"\x89PNG")
