"""Several nodes on one machine: each pool's node is that of the configuration. No cluster is started."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.check.config import check_file
from cluster.local import nodes
from cluster.local.network import BRIDGE, ClusterNotStarted
from cluster.local.nodes import CONFIG, Machine
from cluster.packing import demands


def config() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    return data


def test_the_multi_pool_configuration_has_no_errors() -> None:
    assert check_file(CONFIG, policy=False) == []


def test_every_pool_is_a_node_that_holds_all_its_replicas() -> None:
    by_pool = {
        group.name: (dict(group.labels), dict(group.custom), group.gpus) for group in nodes.pools(config())
    }

    assert by_pool == {
        "ingress": ({"pool": "ingress"}, {}, 0),
        "math": ({"pool": "math"}, {}, 3),
        "text": ({"pool": "text"}, {}, 4),
        "pool-facts": ({}, {"pool_facts": 1000.0}, 2),
    }


def test_a_node_starts_with_its_pools_labels_resources_and_gpus() -> None:
    by_name = {group.name: nodes.node_command(group, "10.0.0.2") for group in nodes.pools(config())}

    assert "--labels=pool=math" in by_name["math"]
    assert "--num-gpus=4" in by_name["text"]
    assert '--resources={"pool_facts": 1000.0}' in by_name["pool-facts"]


def test_a_simulated_replica_has_two_bundles_on_one_node() -> None:
    demand = next(demand for demand in demands(config()) if demand.app == "expert-words")

    assert [dict(bundle) for bundle in demand.bundles] == [{"CPU": 0.1, "GPU": 1.0}] * 2
    assert demand.pieces == ({"CPU": 0.2, "GPU": 2.0},)


def test_an_unknown_pool_cannot_join() -> None:
    with pytest.raises(ClusterNotStarted, match="there is no pool 'mars'; there are ingress"):
        Machine().join(config(), "mars")


def test_ending_no_cluster_does_nothing(tmp_path: Any) -> None:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and `ip`")
    if Path("/sys/class/net", BRIDGE).exists():
        pytest.skip("a local cluster runs on this machine")

    Machine(tmp_path / "nodes").down()

    assert not (tmp_path / "nodes").exists()


def test_a_network_without_a_process_is_removed_too(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and `ip`")
    if Path("/sys/class/net", BRIDGE).exists():
        pytest.skip("a local cluster runs on this machine")
    subprocess.run(["ip", "netns", "add", "to-router-left-over"], check=True)

    Machine(tmp_path / "nodes").down()

    assert not Path("/run/netns/to-router-left-over").exists()
