"""What deployments need from nodes, and the replicas that nodes hold: pure functions over plain values."""

from typing import Any

import pytest
import yaml

from cluster.packing import Nodes, demands, matches, unplaced
from tests.cluster.configs import ROOT, good

CPU_NODE = {"CPU": 8.0}


def with_args(config: dict[str, Any], part: str, **args: Any) -> dict[str, Any]:
    """The configuration with additional `args` for ingress or router."""
    config["applications"][0]["args"].setdefault(part, {}).update(args)
    return config


def missing(config: dict[str, Any], app: str, deployment: str, count: int, nodes: list[Nodes]) -> int:
    """The number of replicas that do not fit on otherwise empty nodes."""
    demand = next(
        demand for demand in demands(config) if (demand.app, demand.deployment) == (app, deployment)
    )
    return unplaced([(demand, count)], nodes, most=True).get(demand.key, 0)


@pytest.mark.parametrize(
    ("selector", "label", "expected"),
    [("a", "a", True), ("a", "b", False), ("!a", "b", True), ("in(a, b)", "b", True),
     ("!in(a,b)", "b", False), ("a", None, False), ("!a", None, True)],
)  # fmt: skip
def test_labels_match_by_the_operators_of_ray(selector: str, label: str | None, expected: bool) -> None:
    assert matches({"pool": selector}, {} if label is None else {"pool": label}) is expected


def test_replicas_spread_over_nodes_on_request() -> None:
    config = with_args(good(), "ingress", max_replicas_per_node=1)
    nodes = [Nodes(name, {}, CPU_NODE) for name in ("a", "b")]

    assert missing(config, "to-router", "Ingress", 2, nodes) == 0
    assert missing(config, "to-router", "Ingress", 3, nodes) == 1
    assert missing(good(), "to-router", "Ingress", 3, nodes) == 0


def test_a_router_and_small_experts_share_a_gpu() -> None:
    config = with_args(good(), "router", num_gpus=0.25, pool={"labels": {"pool": "sums"}})
    config["applications"][1]["args"]["gpus_per_worker"] = 0.25
    node = [Nodes("gpu", {"pool": "sums"}, {"CPU": 8.0, "GPU": 1.0})]
    shared = [demand for demand in demands(config) if demand.labels == {"pool": "sums"}]

    assert [demand.gpus for demand in shared] == [0.25, 0.25]
    assert unplaced([(demand, 2) for demand in shared], node, most=True) == {}
    assert sum(unplaced([(demand, 3) for demand in shared], node, most=True).values()) == 2


def test_tensor_parallel_replicas_stay_on_one_node() -> None:
    config = good()
    engine = config["applications"][1]["args"]["engine"]
    nodes = [Nodes(name, {"pool": "sums"}, {"CPU": 8.0, "GPU": 2.0}) for name in ("a", "b")]

    engine["tensor_parallel_size"] = 4
    assert missing(config, "expert-sums", "Expert", 1, nodes) == 1

    del engine["tensor_parallel_size"]
    engine["pipeline_parallel_size"] = 4
    assert missing(config, "expert-sums", "Expert", 1, nodes) == 0
    assert missing(config, "expert-sums", "Expert", 2, nodes) == 1


def test_the_workers_of_a_pipeline_stage_stay_on_one_node() -> None:
    config = good()
    engine = config["applications"][1]["args"]["engine"]
    engine.update(tensor_parallel_size=2, pipeline_parallel_size=2)
    demand = next(demand for demand in demands(config) if demand.app == "expert-sums")

    assert [piece["GPU"] for piece in demand.pieces] == [2, 2]
    pairs = [Nodes(name, {"pool": "sums"}, {"CPU": 8.0, "GPU": 2.0}) for name in "ab"]
    singles = [Nodes(name, {"pool": "sums"}, {"CPU": 8.0, "GPU": 1.0}) for name in "abcd"]
    assert missing(config, "expert-sums", "Expert", 1, pairs) == 0
    assert missing(config, "expert-sums", "Expert", 1, singles) == 1


def test_a_fraction_is_of_one_gpu() -> None:
    config = good()
    config["applications"][1]["args"]["gpus_per_worker"] = 0.4
    node = [Nodes("gpu", {"pool": "sums"}, {"CPU": 8.0, "GPU": 2.0})]

    assert missing(config, "expert-sums", "Expert", 4, node) == 0
    assert missing(config, "expert-sums", "Expert", 5, node) == 1


def test_a_whole_gpu_is_a_free_one() -> None:
    config = good()
    fraction, whole = config["applications"][1:3]
    fraction["args"]["gpus_per_worker"] = 0.5
    whole["args"].update(pool=fraction["args"]["pool"], engine={"tensor_parallel_size": 2})
    small, large = (demand for demand in demands(config) if demand.labels == {"pool": "sums"})
    node = [Nodes("gpu", {"pool": "sums"}, {"CPU": 8.0, "GPU": 3.0})]

    assert unplaced([(small, 2), (large, 1)], node, most=True) == {}
    assert unplaced([(small, 3), (large, 1)], node, most=True) == {small.key: 1}


def test_a_replica_that_does_not_fit_reserves_nothing() -> None:
    config = good()
    config["applications"][1]["args"]["engine"]["pipeline_parallel_size"] = 3
    config["applications"][2]["args"]["pool"] = {"labels": {"pool": "sums"}}
    experts = [demand for demand in demands(config) if demand.labels == {"pool": "sums"}]
    node = [Nodes("gpu", {"pool": "sums"}, {"CPU": 8.0, "GPU": 2.0})]

    assert unplaced([(demand, 1) for demand in experts], node, most=True) == {"expert-sums.Expert": 1}


@pytest.mark.parametrize("name", ["gpu", "multi-gpu"])
def test_reference_experts_scale_up_soon_and_down_late(name: str) -> None:
    """As in docs/deploy.md: at three quarters of the batch, without cutting off an answer."""
    config = yaml.safe_load((ROOT / "cluster" / "reference" / f"{name}.yaml").read_text(encoding="utf-8"))
    for app in config["applications"][1:]:
        deployment, batch = app["deployments"][0], app["args"]["engine"]["max_num_seqs"]
        scale = deployment["autoscaling_config"]

        assert scale["target_ongoing_requests"] == 0.75 * batch
        assert deployment["max_ongoing_requests"] > batch
        assert scale["upscale_delay_s"] < scale["downscale_delay_s"]
        assert deployment["graceful_shutdown_timeout_s"] >= 300
