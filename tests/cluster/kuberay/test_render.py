"""Manifests: rendered from the configuration, valid offline, built by kustomize, and up to date."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.check.config import check_file
from cluster.ingress import longest_response_s
from cluster.kuberay.pods import LABEL
from cluster.kuberay.rayservice import render, serve_config
from cluster.kuberay.render import rendered
from cluster.kuberay.settings import BadRenderSettings, PodSettings, RenderSettings, read_settings
from cluster.kuberay.worker_groups import pool_name
from cluster.packing import demands
from cluster.transport import AUTH_MODE, HARD_STOP, transport_flags
from router.cli import main
from tests.cluster.configs import ROOT, good, written
from tests.cluster.kuberay.validate import errors_of

OVERLAYS = ROOT / "cluster" / "kuberay" / "overlays"
BASE = ROOT / "cluster" / "kuberay" / "base"
SOURCES = {
    "cpu": ROOT / "serve_config.yaml",
    "gpu": ROOT / "cluster" / "reference" / "gpu.yaml",
    "multi-gpu": ROOT / "cluster" / "reference" / "multi-gpu.yaml",
}
needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed: overlays are not built here"
)


def service(objects: list[dict[str, Any]]) -> dict[str, Any]:
    return next(one for one in objects if one["kind"] == "RayService")


def documents(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one]


@pytest.mark.parametrize("overlay", SOURCES)
def test_the_committed_manifest_is_what_the_command_writes(overlay: str) -> None:
    committed = (OVERLAYS / overlay / "rayservice.yaml").read_text(encoding="utf-8")

    now = rendered(SOURCES[overlay], OVERLAYS / overlay / "render.yaml")

    assert now == committed, "render it again, see the head of the overlay's kustomization.yaml"


@pytest.mark.parametrize("overlay", SOURCES)
def test_serve_config_inside_differs_in_the_address_only(overlay: str) -> None:
    source = yaml.safe_load(SOURCES[overlay].read_text(encoding="utf-8"))

    inside = yaml.safe_load(serve_config(source))

    assert inside["http_options"].pop("host") == "0.0.0.0"  # noqa: S104 - a pod's own network
    source["http_options"].pop("host")
    assert inside == source


@pytest.mark.parametrize("overlay", SOURCES)
def test_every_reference_passes_check_with_its_manifest(overlay: str) -> None:
    findings = check_file(
        SOURCES[overlay], kuberay=OVERLAYS / overlay / "rayservice.yaml", policy=overlay == "cpu"
    )

    assert [str(finding) for finding in findings] == []


@needs_kubectl
@pytest.mark.parametrize("overlay", [*SOURCES, "incremental"])
def test_kustomize_builds_an_overlay_of_valid_objects(overlay: str) -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(OVERLAYS / overlay)], capture_output=True, text=True, check=True
    )
    objects = documents(built.stdout)

    assert [error for one in objects for error in errors_of(one)] == []
    kinds = {one["kind"] for one in objects}
    assert {"RayService", "PodDisruptionBudget", "PriorityClass", "PodMonitor", "StatefulSet"} <= kinds
    assert ("HTTPRoute" in kinds) == (overlay not in {"incremental", "cpu"})
    assert ("Gateway" in kinds) == ("HTTPRoute" in kinds)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "cluster" / "kuberay" / "base").glob("*.yaml")), ids=lambda f: f.stem
)
def test_every_object_of_the_base_is_valid(file: Path) -> None:
    objects = [o for o in documents(file.read_text(encoding="utf-8")) if o["kind"] != "Kustomization"]

    assert [error for one in objects for error in errors_of(one)] == []


def test_validation_rejects_an_unknown_field_at_any_depth() -> None:
    objects = render(good(), RenderSettings(), transport_flags())
    service(objects)["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplica"] = 3
    pod = service(objects)["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    pod["containers"][0]["imagePullPolice"] = "Always"

    errors = errors_of(service(objects))

    assert any("maxReplica" in line for line in errors)
    assert any("imagePullPolice" in line for line in errors)


@pytest.mark.parametrize("overlay", SOURCES)
def test_no_group_defines_its_resources_twice(overlay: str) -> None:
    objects = documents((OVERLAYS / overlay / "rayservice.yaml").read_text(encoding="utf-8"))

    assert errors_of(service(objects)) == []


def test_validation_rejects_duplicate_resources() -> None:
    objects = render(good(), RenderSettings(), {})
    cluster = service(objects)["spec"]["rayClusterConfig"]
    cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] = "0"
    cluster["workerGroupSpecs"][1]["rayStartParams"] = {"num-gpus": "1", "resources": "'{}'"}

    errors = errors_of(service(objects))

    assert [line.split(": ")[1] for line in errors] == [
        "headGroupSpec.rayStartParams",
        "workerGroupSpecs[ingress].rayStartParams",
    ]
    assert "num-gpus, resources beside `resources`" in errors[1]


def test_a_kind_without_a_schema_is_an_error() -> None:
    errors = errors_of({"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "x"}})

    assert errors == ["Thing x: no schema of example.org/v1 Thing is pinned"]


def test_each_pool_is_a_worker_group_with_labels_and_bounds() -> None:
    groups = service(render(good(), RenderSettings(), {}))["spec"]["rayClusterConfig"]["workerGroupSpecs"]

    bounds = {g["groupName"]: (g["minReplicas"], g["maxReplicas"], g.get("labels")) for g in groups}
    assert bounds == {
        "cpu": (1, 1, None),
        "ingress": (1, 1, {"pool": "ingress"}),
        "sums": (1, 2, {"pool": "sums"}),
        "words": (1, 2, {"pool": "words"}),
        "large": (1, 2, {"pool": "large"}),
    }


def test_tensor_parallelism_sets_the_gpus_of_a_pod() -> None:
    config = good()
    config["applications"][1]["args"]["engine"]["tensor_parallel_size"] = 4

    groups = service(render(config, RenderSettings(), {}))["spec"]["rayClusterConfig"]["workerGroupSpecs"]

    group = next(g for g in groups if g["groupName"] == "sums")
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (group["resources"]["GPU"], limits["nvidia.com/gpu"]) == ("4", "4")


def test_a_pipeline_stage_is_a_pod() -> None:
    config = good()
    config["applications"][1]["args"]["engine"].update(tensor_parallel_size=4, pipeline_parallel_size=2)

    groups = service(render(config, RenderSettings(), {}))["spec"]["rayClusterConfig"]["workerGroupSpecs"]

    group = next(g for g in groups if g["groupName"] == "sums")
    assert (group["resources"]["GPU"], group["minReplicas"], group["maxReplicas"]) == ("4", 2, 4)


def test_pods_with_more_gpus_are_fewer() -> None:
    settings = RenderSettings(pools={"sums": PodSettings(gpus=2)})

    groups = service(render(good(), settings, {}))["spec"]["rayClusterConfig"]["workerGroupSpecs"]

    assert next(g for g in groups if g["groupName"] == "sums")["maxReplicas"] == 1


def test_a_pool_of_a_custom_resource_declares_it() -> None:
    config = good()
    config["applications"][1]["args"]["pool"] = {"resources": {"pool_sums": 0.001}}

    groups = service(render(config, RenderSettings(), {}))["spec"]["rayClusterConfig"]["workerGroupSpecs"]

    group = next(g for g in groups if g["groupName"] == "pool-sums")
    assert group["resources"]["pool_sums"] == "1000"


def test_no_replica_on_the_head_and_no_container_as_root() -> None:
    cluster = service(render(good(), RenderSettings(), {}))["spec"]["rayClusterConfig"]

    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert cluster["headGroupSpec"]["resources"] == {"CPU": "0", "GPU": "0"}
    assert all(pod["template"]["spec"]["securityContext"]["runAsNonRoot"] for pod in pods)


def test_head_and_workers_have_the_flags_of_the_transport() -> None:
    flags = transport_flags()
    cluster = service(render(good(), RenderSettings(), flags))["spec"]["rayClusterConfig"]

    for pod in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        env = {e["name"]: e["value"] for e in pod["template"]["spec"]["containers"][0]["env"]}
        assert env.items() >= {k: v for k, v in flags.items() if k not in {AUTH_MODE, HARD_STOP}}.items()


def test_the_operator_sets_the_token_of_every_pod() -> None:
    cluster = service(render(good(), RenderSettings(), transport_flags()))["spec"]["rayClusterConfig"]

    assert cluster["authOptions"] == {"mode": "token"}
    for pod in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert AUTH_MODE not in {e["name"] for e in pod["template"]["spec"]["containers"][0]["env"]}


def test_a_pod_outlives_the_grace_of_its_replicas() -> None:
    config = good()
    config["applications"][1]["deployments"][0]["graceful_shutdown_timeout_s"] = 300

    cluster = service(render(config, RenderSettings(), {}))["spec"]["rayClusterConfig"]

    group = next(g for g in cluster["workerGroupSpecs"] if g["groupName"] == "sums")
    assert group["template"]["spec"]["terminationGracePeriodSeconds"] > 300


def test_budgets_select_the_pods_of_their_group() -> None:
    objects = render(good(), RenderSettings(), {})
    cluster = service(objects)["spec"]["rayClusterConfig"]
    pods = {
        template["metadata"]["labels"][LABEL]: template["metadata"]["labels"]
        for template in (g["template"] for g in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]])
    }

    budgets = [
        one["spec"]["selector"]["matchLabels"] for one in objects if one["kind"] == "PodDisruptionBudget"
    ]

    assert {b[LABEL] for b in budgets} == pods.keys()
    assert all(pods[b[LABEL]].items() >= b.items() for b in budgets)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("imagee: x\n", "imagee: unknown key"), ("pools: {nowhere: {gpus: 1}}\n", "pools.nowhere is no pool"),
     ("pools: {sums: {gpus: 0}}\n", "pools.sums.gpus"), ("a: [", "cannot be read")],
)  # fmt: skip
def test_wrong_settings_are_one_clear_error(
    text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "render.yaml"
    settings.write_text(text, encoding="utf-8")

    code = main(["render", "kuberay", str(written(with_keys(), tmp_path)), "--settings", str(settings)])

    assert code == 2
    assert expected in capsys.readouterr().err


def test_a_configuration_with_errors_renders_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = good()
    config["applications"][1]["deployments"][0]["num_replicas"] = 2
    out = tmp_path / "ray.yaml"

    code = main(["render", "kuberay", str(written(config, tmp_path)), "--out", str(out)])

    assert code == 2
    assert not out.exists()
    assert "num_replicas" in capsys.readouterr().err


def test_pods_too_small_for_a_replica_are_rejected() -> None:
    settings = RenderSettings(pools={"sums": PodSettings(cpus=0.5)})

    with pytest.raises(BadRenderSettings, match="pods of pool sums are too small for expert-sums"):
        render(good(), settings, {})


def test_the_settings_of_each_overlay_are_read() -> None:
    assert all(read_settings(OVERLAYS / name / "render.yaml").image for name in SOURCES)


def test_pools_get_names_that_are_valid_in_kubernetes() -> None:
    config = good()
    config["applications"][1]["args"]["pool"] = {"labels": {"zone": "EU_1", "tier": "Big"}}

    assert pool_name(demands(config)[2]) == "eu-1-big"


def group(objects: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The pod template's specification of one worker group."""
    groups = service(objects)["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    spec: dict[str, Any] = next(g for g in groups if g["groupName"] == name)["template"]["spec"]
    return spec


def secrets(spec: dict[str, Any]) -> set[str]:
    """Names of the Secrets that a pod gets."""
    sources = [s["secretRef"]["name"] for c in spec["containers"] for s in c.get("envFrom", [])]
    return {*sources, *(v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v)}


def with_keys(
    file: str = "/etc/to-router/keys/keys.json", counts: str | None = "var/keys.counts.json"
) -> dict[str, Any]:
    config = good()
    config["applications"][0]["args"]["ingress"]["pool"] = {"labels": {"pool": "ingress"}}
    config["applications"][0]["deployments"][0]["user_config"]["keys"] = {"file": file, "counts": counts}
    return config


def test_without_keys_nothing_is_rendered_unless_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["render", "kuberay", str(written(good(), tmp_path)), "--out", str(tmp_path / "ray.yaml")]

    assert main(command) == 2
    assert "keys: is missing" in capsys.readouterr().err
    assert not (tmp_path / "ray.yaml").exists()
    assert main([*command, "--allow-anonymous"]) == 0
    assert (tmp_path / "ray.yaml").exists()


@pytest.mark.parametrize("overlay", ["gpu", "multi-gpu"])
def test_a_reference_has_keys_for_the_ingress_only(overlay: str) -> None:
    objects = documents((OVERLAYS / overlay / "rayservice.yaml").read_text(encoding="utf-8"))
    cluster = service(objects)["spec"]["rayClusterConfig"]
    groups = {g["groupName"]: g["template"]["spec"] for g in cluster["workerGroupSpecs"]}

    assert secrets(groups.pop("ingress")) == {"to-router-keys", "to-router-providers"}
    assert secrets(cluster["headGroupSpec"]["template"]["spec"]) == set()
    assert all(secrets(spec) == {"to-router-hub"} for spec in groups.values())


def test_the_keys_are_mounted_where_the_configuration_expects_them() -> None:
    spec = group(render(with_keys("/run/keys/all.json"), RenderSettings(), {}), "ingress")
    mounts = {m["name"]: m for m in spec["containers"][0]["volumeMounts"]}

    assert (mounts["keys"]["mountPath"], mounts["keys"]["readOnly"]) == ("/run/keys", True)
    assert mounts["state"]["mountPath"] == "/app/var"


@pytest.mark.parametrize("file", ["var/keys.json", "/app/var/keys.json", "/keys.json"])
def test_a_key_file_inside_the_image_is_rejected(file: str) -> None:
    with pytest.raises(BadRenderSettings, match=r"keys\.file"):
        render(with_keys(file), RenderSettings(), {})


@pytest.mark.parametrize("counts", [None, "keys.counts.json", "/data/counts.json", "var/../counts.json"])
def test_counts_that_a_pod_takes_along_are_rejected(counts: str | None) -> None:
    with pytest.raises(BadRenderSettings, match=r"keys\.counts .* must be below /app/var"):
        render(with_keys(counts=counts), RenderSettings(), {})


def test_a_decision_log_on_a_read_only_disk_is_rejected() -> None:
    config = good()
    config["applications"][0]["deployments"][0]["user_config"]["log"] = {"folder": "logs"}

    with pytest.raises(BadRenderSettings, match=r"log\.folder 'logs' must be below /app/var"):
        render(config, RenderSettings(), {})


def test_an_ingress_without_a_pool_has_its_keys_on_every_worker() -> None:
    config = with_keys()
    del config["applications"][0]["args"]["ingress"]["pool"]
    objects = render(config, RenderSettings(), {})

    assert all("to-router-keys" in secrets(group(objects, name)) for name in ("cpu", "ingress", "sums"))


def test_a_router_apart_from_the_ingress_keeps_its_state_without_keys() -> None:
    config = with_keys()
    config["applications"][0]["args"]["router"]["pool"] = {"labels": {"pool": "router"}}
    spec = group(render(config, RenderSettings(), {}), "router")

    assert "state" in {volume["name"] for volume in spec["volumes"]}
    assert secrets(spec) == set()


def test_a_pod_of_engines_alone_copies_adapters_to_the_claim_for_weights() -> None:
    objects = render(with_keys(), RenderSettings(), {})
    (container,) = group(objects, "sums")["containers"]
    state = {one["name"]: one["value"] for one in container["env"] if "value" in one}["TO_ROUTER_STATE"]

    assert any(state.startswith(mount["mountPath"]) for mount in container["volumeMounts"])


def test_only_a_redirect_listens_without_tls() -> None:
    gateway, *routes = documents((BASE / "route.yaml").read_text(encoding="utf-8"))
    listeners = {one["name"]: one for one in gateway["spec"]["listeners"]}
    by_listener = {route["spec"]["parentRefs"][0]["sectionName"]: route for route in routes}

    assert listeners["https"]["tls"]["certificateRefs"] == [{"name": "to-router-tls"}]
    assert {n for n, one in listeners.items() if one["protocol"] == "HTTP"} == {"http"}
    assert by_listener.keys() == {"https", "http"}
    assert [rule.keys() for rule in by_listener["http"]["spec"]["rules"]] == [{"filters"}]


@pytest.mark.parametrize("seconds", [90, 600, 1800])
def test_one_number_defines_how_long_a_pod_outlives_its_deletion(seconds: int) -> None:
    config = good()
    config["applications"][0]["args"]["ingress"]["request_timeout_s"] = seconds
    spec = service(render(config, RenderSettings(), transport_flags()))["spec"]
    cluster = spec["rayClusterConfig"]

    assert spec["rayClusterDeletionDelaySeconds"] > seconds
    for pod in (g["template"]["spec"] for g in cluster["workerGroupSpecs"]):
        (container,) = pod["containers"]
        env = {e["name"]: e["value"] for e in container["env"]}
        script, drain_s = container["lifecycle"]["preStop"]["exec"]["command"]
        assert (ROOT / Path(script).relative_to("/app")).stat().st_mode & 0o111
        assert seconds < int(env[HARD_STOP]) < int(drain_s) < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("overlay", SOURCES)
def test_the_route_outlasts_every_reference(overlay: str) -> None:
    _, route, _ = documents((BASE / "route.yaml").read_text(encoding="utf-8"))
    (rule,) = route["spec"]["rules"]
    config = yaml.safe_load(SOURCES[overlay].read_text(encoding="utf-8"))

    assert {float(v.removesuffix("s")) for v in rule["timeouts"].values()} == {660.0}
    assert longest_response_s(config) < 660


def test_the_password_of_redis_is_in_no_command_line() -> None:
    text = (BASE / "redis.yaml").read_text(encoding="utf-8")
    server = next(one for one in documents(text) if one["kind"] == "StatefulSet")
    (redis,) = server["spec"]["template"]["spec"]["containers"]
    first, *settings, last = redis["command"][2].splitlines()

    assert (first, last) == ("exec redis-server - <<CONFIG", "CONFIG")
    assert "requirepass $REDIS_PASSWORD" in settings
    assert redis["securityContext"]["readOnlyRootFilesystem"]
