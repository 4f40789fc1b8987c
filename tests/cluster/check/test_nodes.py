"""`to-router check` against the nodes of a cluster."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.check.nodes import ClusterUnreachable, check_counts, check_fit, cluster_nodes
from cluster.packing import Nodes, demands
from tests.cluster.check.test_config import first, scale
from tests.cluster.configs import good

NODES = [
    Nodes("head", {"pool": "ingress"}, {"CPU": 8.0}),
    *(Nodes(f"gpu-{n}", {"pool": n}, {"CPU": 8.0, "GPU": 2.0}) for n in ("sums", "words", "large")),
]


def fit(config: dict[str, Any], nodes: list[Nodes]) -> list[tuple[str, str, str]]:
    return [(f.level, f.key, f.message) for f in check_fit(demands(config), nodes, where="test")]


def test_pools_that_fit_are_passed() -> None:
    assert fit(good(), NODES) == []


def test_a_label_that_no_node_has_is_named_with_the_labels() -> None:
    config = good()
    first(config)["args"]["pool"] = {"labels": {"pool": "summs"}}

    findings = fit(config, NODES)

    assert [(level, key) for level, key, _ in findings] == [("error", "expert-sums.Expert")]
    assert "no node of pool pool=summs" in findings[0][2]
    assert "pool=sums" in findings[0][2]


def test_a_pool_scaled_to_zero_may_have_no_node_yet() -> None:
    config = good()
    nodes = [node for node in NODES if node.name != "gpu-sums"]

    def levels(low: int, *, more_may_join: bool) -> list[str]:
        scale(config)["autoscaling_config"]["min_replicas"] = low
        findings = check_fit(demands(config), nodes, where="test", more_may_join=more_may_join)
        return [finding.level for finding in findings]

    assert levels(0, more_may_join=True) == ["warning"]
    assert levels(0, more_may_join=False) == ["error"]
    assert levels(1, more_may_join=True) == ["error"]


def test_a_custom_resource_that_no_node_has_is_named() -> None:
    config = good()
    first(config)["args"]["pool"] = {"resources": {"pool_sums": 0.001}}

    assert "no node of pool pool_sums" in fit(config, NODES)[0][2]


def test_tensor_parallelism_must_fit_on_one_node() -> None:
    config = good()
    first(config)["args"]["engine"]["tensor_parallel_size"] = 4
    nodes = [*NODES, Nodes("gpu-sums-2", {"pool": "sums"}, {"CPU": 8.0, "GPU": 2.0})]

    findings = fit(config, nodes)

    assert "needs 4 GPU on one node, the largest node of pool pool=sums has 2" in findings[0][2]


def test_pipeline_stages_may_spread_over_nodes() -> None:
    config = good()
    first(config)["args"]["engine"]["pipeline_parallel_size"] = 4
    scale(config)["autoscaling_config"]["max_replicas"] = 1
    nodes = [*NODES, Nodes("gpu-sums-2", {"pool": "sums"}, {"CPU": 8.0, "GPU": 2.0})]

    assert fit(config, nodes) == []


def test_two_experts_that_share_a_pool_are_added_up() -> None:
    config = good()
    for app in config["applications"][1:]:
        app["args"]["pool"] = {"labels": {"pool": "sums"}}
        app["deployments"][0]["autoscaling_config"]["max_replicas"] = 1

    findings = fit(config, NODES)

    assert [level for level, *_ in findings] == ["error"]
    assert "do not fit beside the others" in findings[0][2]


def test_a_maximum_that_fixed_nodes_cannot_hold_is_a_warning() -> None:
    config = good()
    scale(config)["autoscaling_config"]["max_replicas"] = 3

    findings = fit(config, NODES)

    assert [(level, key) for level, key, _ in findings] == [("warning", "expert-sums.Expert")]
    assert "only 2 of max_replicas 3" in findings[0][2]


def test_the_nodes_of_a_cluster_are_the_living_ones() -> None:
    rows = [
        {"node_name": "a", "state": "ALIVE", "labels": {"pool": "x"}, "resources_total": {"CPU": 2.0}},
        {"node_name": "b", "state": "DEAD", "labels": {}, "resources_total": {"CPU": 2.0}},
    ]
    response = {"result": True, "data": {"result": {"result": rows}}}
    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=response)))

    assert cluster_nodes("http://ray:8265", client=client) == [Nodes("a", {"pool": "x"}, {"CPU": 2.0})]


@pytest.mark.parametrize("response", [httpx.Response(503), httpx.Response(200, json={"data": None})])
def test_a_cluster_without_a_response_is_one_clear_error(response: httpx.Response) -> None:
    client = httpx.Client(transport=httpx.MockTransport(lambda _: response))

    with pytest.raises(ClusterUnreachable, match="http://ray:8265"):
        cluster_nodes("http://ray:8265", client=client)


@pytest.mark.parametrize("where", ["variable", "file", "home"])
def test_rays_token_is_found_where_ray_looks_for_it(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".ray" / "auth_token" if where == "home" else tmp_path / "token"
    file.parent.mkdir(exist_ok=True)
    file.write_text("secret\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    if where == "variable":
        monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    elif where == "file":
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    sent: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["authorization"])
        return httpx.Response(200, json={"data": {"result": {"result": []}}})

    cluster_nodes("http://ray:8265", client=httpx.Client(transport=httpx.MockTransport(respond)))

    assert sent == ["Bearer secret"]


@pytest.mark.parametrize(
    ("keys", "machines", "expected"),
    [
        (None, 3, []),
        ({"file": "keys.json"}, 1, []),
        ({"file": "keys.json", "counts": "/shared/counts.json"}, 3, []),
        ({"file": "keys.json"}, 3, ["to-router.Ingress.user_config.keys.counts"]),
    ],
)
def test_counts_that_a_lost_node_takes_along_are_found(
    keys: dict[str, str] | None, machines: int, expected: list[str]
) -> None:
    config = good()
    config["applications"][0]["deployments"][0]["user_config"]["keys"] = keys
    nodes = [Nodes(f"cpu-{n}", {}, {"CPU": 8.0}) for n in range(machines)]

    findings = list(check_counts(config, demands(config), nodes, where="test"))

    assert [finding.key for finding in findings] == expected
    assert all("3 nodes can run the ingress" in finding.message for finding in findings)
