"""`to-router check`: each fault of a configuration is named, with its key and what was found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.check import check_file
from cluster.check_fit import ClusterUnreachable, ManifestUnreadable, check_fit, cluster_nodes, quantity
from cluster.pools import Nodes, asks
from cluster.render_kuberay import manifest, render
from cluster.render_settings import RenderSettings
from router.cli import main
from tests.cluster.configs import expert, good, written

Break = Callable[[dict[str, Any]], object]


def door(config: dict[str, Any], deployment: int) -> dict[str, Any]:
    found: dict[str, Any] = config["applications"][0]["deployments"][deployment]
    return found


def first(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["applications"][1]
    return found


def scale(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = first(config)["deployments"][0]
    return found


BROKEN: dict[str, tuple[Break, str, str]] = {
    "an unknown key at the top": (lambda c: c.update(aplications=[]), "aplications", "unknown key"),
    "an unknown key of the application": (
        lambda c: first(c).update(runtime_envs={}),
        "expert-sums.runtime_envs",
        "drop in silence",
    ),
    "an unknown key of a deployment": (
        lambda c: scale(c).update(max_ongoing_request=3),
        "expert-sums.deployments[Expert].max_ongoing_request",
        "drop in silence",
    ),
    "an unknown key of autoscaling": (
        lambda c: scale(c)["autoscaling_config"].update(max_replica=9),
        "autoscaling_config.max_replica",
        "drop in silence",
    ),
    "an unknown key of our own": (
        lambda c: c["applications"][0]["args"]["router"].update(batch=3),
        "to-router.args.router.batch",
        "unknown key",
    ),
    "an unknown engine argument": (
        lambda c: first(c)["args"]["engine"].update(max_modle_len=5),
        "expert-sums.args.engine.max_modle_len",
        "vLLM knows no such engine argument",
    ),
    "a model that is not there": (
        lambda c: first(c)["args"].update(model="cluster/local/experts/nowhere"),
        "expert-sums.args.model",
        "nowhere",
    ),
    "replicas fixed on an expert": (
        lambda c: scale(c).update(num_replicas=2),
        "expert-sums.deployments[Expert].num_replicas",
        "overruled in silence",
    ),
    "actor options on an expert": (
        lambda c: scale(c).update(ray_actor_options={"num_gpus": 1}),
        "expert-sums.deployments[Expert].ray_actor_options",
        "environment",
    ),
    "no target of autoscaling": (
        lambda c: scale(c)["autoscaling_config"].pop("target_ongoing_requests"),
        "target_ongoing_requests",
        "never scales",
    ),
    "a minimum above the maximum": (
        lambda c: scale(c)["autoscaling_config"].update(min_replicas=5),
        "expert-sums.deployments[Expert].autoscaling_config",
        "min_replicas 5 is above max_replicas 2",
    ),
    "max_ongoing_requests left out at the door": (
        lambda c: door(c, 0).pop("max_ongoing_requests"),
        "to-router.deployments[Ingress].max_ongoing_requests",
        "default of 5",
    ),
    "an expert without an application": (
        lambda c: c["applications"].pop(1),
        "experts.sums.app",
        "there is no application 'expert-sums'",
    ),
    "an expert by another name": (
        lambda c: first(c)["args"].update(name="totals"),
        "experts.sums",
        "serves itself as 'totals'",
    ),
    "an expert with a route of its own": (
        lambda c: first(c).update(route_prefix="/sums"),
        "expert-sums.route_prefix",
        "must be null",
    ),
    "the same application twice": (
        lambda c: c["applications"].append(first(c)),
        "applications[].name",
        "'expert-sums' stands twice",
    ),
    "the price of a stranger": (
        lambda c: door(c, 1)["user_config"]["prices"].update(giant={"input": 1, "output": 1}),
        "prices.giant",
        "does not score this expert",
    ),
    "a negative price": (
        lambda c: door(c, 1)["user_config"]["prices"]["sums"].update(input=-1),
        "prices.sums.input",
        "-1",
    ),
    "a price without its output": (
        lambda c: door(c, 1)["user_config"]["prices"].update(sums={"input": 1}),
        "prices.sums.output",
        "missing",
    ),
    "a policy that is not there": (
        lambda c: door(c, 1)["user_config"].update(policy="no/such/policy"),
        "to-router.Router.user_config.policy",
        "no/such/policy",
    ),
    "a policy that does not cover an expert": (
        lambda c: (
            c["applications"].append(expert("new")),
            door(c, 0)["user_config"]["experts"].update(new={"app": "expert-new"}),
        ),
        "to-router.Router.user_config.policy",
        "does not cover the experts new",
    ),
    "a pool named in two ways": (
        lambda c: first(c)["args"].update(pool={"labels": {"a": "b"}, "resources": {"c": 1}}),
        "expert-sums.args.pool",
        "give one of them",
    ),
    "a deployment that is not of the graph": (
        lambda c: scale(c).update(name="LLMServer"),
        "expert-sums.deployments[LLMServer].name",
        "no such deployment here; expected Expert",
    ),
    "no ingress": (lambda c: c["applications"].pop(0), "applications", "there is no ingress"),
    "weights that do not fit on the GPU": (
        lambda c: first(c)["args"].update(model="Qwen/Qwen2.5-32B-Instruct", accelerator="L4"),
        "expert-sums.args.accelerator",
        "do not fit on L4",
    ),
    "a context that does not fit beside the weights": (
        lambda c: first(c)["args"].update(
            model="meta-llama/Llama-3.1-8B-Instruct", accelerator="L4", engine={"max_model_len": 131072}
        ),
        "expert-sums.args.engine.max_model_len",
        "131072 tokens take 16.0 GiB",
    ),
}


def errors(config: Any, folder: Path, **options: Any) -> list[tuple[str, str]]:
    found = check_file(written(config, folder), **options)
    return [(finding.key, finding.message) for finding in found if finding.is_error]


def test_a_good_configuration_has_no_fault(tmp_path: Path) -> None:
    assert check_file(written(good(), tmp_path)) == []


@pytest.mark.parametrize(("broken", "key", "told"), BROKEN.values(), ids=BROKEN.keys())
def test_a_fault_is_named_with_its_key(broken: Break, key: str, told: str, tmp_path: Path) -> None:
    config = good()
    broken(config)

    found = errors(config, tmp_path)

    assert any(where.endswith(key) and told in message for where, message in found), found


def test_an_application_without_an_expert_is_a_warning(tmp_path: Path) -> None:
    config = good()
    config["applications"].append(expert("idle"))

    found = check_file(written(config, tmp_path))

    assert [(f.level, f.key) for f in found] == [("warning", "expert-idle")]


@pytest.mark.parametrize("text", ["", "- a\n", "a: [\n", "applications: 3\n"])
def test_what_is_no_configuration_is_one_clear_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_text(text, encoding="utf-8")

    found = check_file(file)

    assert any(finding.is_error for finding in found)


def test_a_policy_that_lies_elsewhere_is_left_unchecked_when_told(tmp_path: Path) -> None:
    config = good()
    door(config, 1)["user_config"]["policy"] = "policies/default"

    assert errors(config, tmp_path, policy=False) == []


def test_the_exit_code_and_json_are_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = good()
    scale(config)["num_replicas"] = 2

    code = main(["check", str(written(config, tmp_path)), "--json"])

    told = json.loads(capsys.readouterr().out)
    assert (code, told["ok"]) == (2, False)
    assert told["findings"][0]["key"] == "expert-sums.deployments[Expert].num_replicas"


# --- against nodes ---

NODES = [
    Nodes("head", {"pool": "door"}, {"CPU": 8.0}),
    *(Nodes(f"gpu-{n}", {"pool": n}, {"CPU": 8.0, "GPU": 2.0}) for n in ("sums", "words", "large")),
]


def fit(config: dict[str, Any], nodes: list[Nodes]) -> list[tuple[str, str, str]]:
    return [(f.level, f.key, f.message) for f in check_fit(asks(config), nodes, where="test")]


def test_pools_that_fit_are_passed() -> None:
    assert fit(good(), NODES) == []


def test_a_label_that_no_node_has_is_named_with_those_there_are() -> None:
    config = good()
    first(config)["args"]["pool"] = {"labels": {"pool": "summs"}}

    found = fit(config, NODES)

    assert [(level, key) for level, key, _ in found] == [("error", "expert-sums.Expert")]
    assert "no node of pool pool=summs" in found[0][2]
    assert "pool=sums" in found[0][2]


def test_a_custom_resource_that_no_node_has_is_named() -> None:
    config = good()
    first(config)["args"]["pool"] = {"resources": {"pool_sums": 0.001}}

    assert "no node of pool pool_sums" in fit(config, NODES)[0][2]


def test_tensor_parallelism_must_fit_on_one_node() -> None:
    config = good()
    first(config)["args"]["engine"]["tensor_parallel_size"] = 4
    nodes = [*NODES, Nodes("gpu-sums-2", {"pool": "sums"}, {"CPU": 8.0, "GPU": 2.0})]

    found = fit(config, nodes)

    assert "needs 4 GPU on one node, the largest node of pool pool=sums has 2" in found[0][2]


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

    found = fit(config, NODES)

    assert [level for level, *_ in found] == ["error"]
    assert "find no room beside the others" in found[0][2]


def test_a_maximum_that_fixed_nodes_cannot_hold_is_a_warning() -> None:
    config = good()
    scale(config)["autoscaling_config"]["max_replicas"] = 3

    found = fit(config, NODES)

    assert [(level, key) for level, key, _ in found] == [("warning", "expert-sums.Expert")]
    assert "only 2 of max_replicas 3" in found[0][2]


def test_the_nodes_of_a_cluster_are_the_living_ones() -> None:
    rows = [
        {"node_name": "a", "state": "ALIVE", "labels": {"pool": "x"}, "resources_total": {"CPU": 2.0}},
        {"node_name": "b", "state": "DEAD", "labels": {}, "resources_total": {"CPU": 2.0}},
    ]
    answer = {"result": True, "data": {"result": {"result": rows}}}
    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=answer)))

    assert cluster_nodes("http://ray:8265", client=client) == [Nodes("a", {"pool": "x"}, {"CPU": 2.0})]


@pytest.mark.parametrize("answer", [httpx.Response(503), httpx.Response(200, json={"data": None})])
def test_a_cluster_that_does_not_answer_is_one_clear_error(answer: httpx.Response) -> None:
    client = httpx.Client(transport=httpx.MockTransport(lambda _: answer))

    with pytest.raises(ClusterUnreachable, match="http://ray:8265"):
        cluster_nodes("http://ray:8265", client=client)


# --- against a manifest ---


def rendered(config: dict[str, Any], folder: Path, **changes: Any) -> Path:
    objects = render(config, RenderSettings(), {})
    spec = objects[0]["spec"]["rayClusterConfig"]
    for key, value in changes.items():
        name, _, what = key.partition("__")
        group = next(g for g in spec["workerGroupSpecs"] if g["groupName"] == name)
        group[what] = value
    file = folder / "ray.yaml"
    file.write_text(manifest(objects, "test"), encoding="utf-8")
    return file


def test_a_rendered_manifest_fits_its_configuration(tmp_path: Path) -> None:
    assert check_file(written(good(), tmp_path), kuberay=rendered(good(), tmp_path)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sums__maxReplicas": 1}, "max_replicas 2 find room"),
        ({"sums__labels": {"pool": "other"}}, "no node of pool pool=sums"),
        ({"sums__resources": {"CPU": "8", "GPU": "0"}}, "needs 1 GPU on one node"),
    ],
)
def test_a_worker_group_that_is_too_small_is_named(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    config = good()
    # At a maximum of one pod nothing grows, and the rest of the groups must not hide that.
    found = errors(config, tmp_path, kuberay=rendered(config, tmp_path, **change))
    warned = [f.message for f in check_file(written(config, tmp_path), kuberay=tmp_path / "ray.yaml")]

    assert any(told in message for _, message in found) or any(told in message for message in warned)


def test_a_manifest_of_another_configuration_is_told_apart(tmp_path: Path) -> None:
    file = rendered(good(), tmp_path)
    changed = good()
    scale(changed)["max_ongoing_requests"] = 99

    found = errors(changed, tmp_path, kuberay=file)

    assert any(key == "serveConfigV2" and "applications" in message for key, message in found)


@pytest.mark.parametrize("text", ["a: [", "kind: Pod\n", ""])
def test_a_file_without_a_ray_service_is_one_clear_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "ray.yaml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ManifestUnreadable, match=r"ray\.yaml"):
        check_file(written(good(), tmp_path), kuberay=file)


@pytest.mark.parametrize(("text", "value"), [("500m", 0.5), ("8Gi", 2**33), ("4", 4), ("1k", 1000)])
def test_quantities_are_read_as_kubernetes_means_them(text: str, value: float) -> None:
    assert quantity(text) == value


def test_an_application_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    config = good()
    config["applications"].append({"name": "other", "route_prefix": "/other", "import_path": "other:app"})

    told = [finding for finding in check_file(written(config, tmp_path)) if "other" in finding.key]

    assert [(finding.level, finding.key) for finding in told] == [("warning", "other.import_path")]
