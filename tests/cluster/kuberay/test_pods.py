"""What a container of a rendered pod may do: no root, no write outside its volumes, bounded disk."""

from typing import Any

import pytest
import yaml

from cluster.kuberay.pods import IMAGE_ROOT, SCRATCH, STATE_FOLDER
from cluster.kuberay.rayservice import render
from cluster.kuberay.settings import BadRenderSettings, PodSettings, RenderSettings
from cluster.kuberay.worker_groups import pool_name
from cluster.packing import demands
from deployments.settings import ROOT_VARIABLE, state_folder
from tests.cluster.configs import ROOT, good

NETWORK = ROOT / "cluster" / "kuberay" / "base" / "network.yaml"


def cluster(config: dict[str, Any] | None = None, settings: RenderSettings | None = None) -> dict[str, Any]:
    objects = render(config or good(), settings or RenderSettings(), {})
    service = next(one for one in objects if one["kind"] == "RayService")
    return dict(service["spec"]["rayClusterConfig"])


def pods(
    config: dict[str, Any] | None = None, settings: RenderSettings | None = None
) -> list[dict[str, Any]]:
    """Specifications of the head's pod and of each worker group's."""
    made = cluster(config, settings)
    return [group["template"]["spec"] for group in (made["headGroupSpec"], *made["workerGroupSpecs"])]


def labelled(value: str) -> dict[str, Any]:
    """A configuration whose first expert has a pool with this label."""
    config = good()
    config["applications"][1]["args"]["pool"] = {"labels": {"pool": value}}
    return config


def test_every_container_has_the_least_privilege() -> None:
    containers = [container for spec in pods() for container in spec["containers"]]

    for container in [*containers, cluster()["autoscalerOptions"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }


def test_ray_writes_to_volumes_only() -> None:
    for spec in pods():
        (container,) = spec["containers"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        environment = {one["name"]: one["value"] for one in container["env"]}

        assert {SCRATCH, "/dev/shm", "/models"} <= mounts.keys()  # noqa: S108
        assert set(mounts.values()) == volumes
        assert environment["HOME"] == SCRATCH
    assert cluster()["autoscalerOptions"]["volumeMounts"] == [{"name": "scratch", "mountPath": SCRATCH}]


def test_the_disk_of_every_container_is_bounded() -> None:
    settings = RenderSettings(pools={"sums": PodSettings(disk_gib=5)})

    for spec in pods(settings=settings):
        (container,) = spec["containers"]
        scratch = next(volume for volume in spec["volumes"] if volume["name"] == "scratch")
        resources = container["resources"]
        bound = resources["limits"]["ephemeral-storage"]
        assert bound == resources["requests"]["ephemeral-storage"] == scratch["emptyDir"]["sizeLimit"]
    assert {spec["volumes"][1]["emptyDir"]["sizeLimit"] for spec in pods(settings=settings)} == {
        "5120Mi",
        "20480Mi",
    }


def test_only_the_head_has_a_service_account() -> None:
    head, *workers = pods()

    assert head["automountServiceAccountToken"] is True  # its autoscaler creates pods
    assert not any(spec["automountServiceAccountToken"] for spec in workers)


def test_the_last_valid_configuration_outlives_its_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, IMAGE_ROOT)
    monkeypatch.delenv("TO_ROUTER_STATE", raising=False)
    made = cluster()
    ingress = next(group for group in made["workerGroupSpecs"] if group["groupName"] == "ingress")
    spec = ingress["template"]["spec"]
    mounted = {m["name"]: m["mountPath"] for m in spec["containers"][0]["volumeMounts"]}

    assert mounted["state"] == STATE_FOLDER
    assert state_folder().is_relative_to(STATE_FOLDER)
    assert {"name": "state", "persistentVolumeClaim": {"claimName": "to-router-state"}} in spec["volumes"]


def test_no_pod_reaches_the_metadata_of_the_cloud() -> None:
    policies = [one for one in yaml.safe_load_all(NETWORK.read_text(encoding="utf-8")) if one]
    blocks = [
        peer["ipBlock"]
        for policy in policies
        for rule in policy["spec"].get("egress", [])
        for peer in rule.get("to", [])
        if "ipBlock" in peer
    ]

    assert all("Egress" in policy["spec"]["policyTypes"] for policy in policies)
    assert all("169.254.0.0/16" in block["except"] for block in blocks if block["cidr"] == "0.0.0.0/0")
    # Not fc00::/7, in which the address of one cloud's metadata is, nor fe80::/10.
    assert {block["cidr"] for block in blocks} == {"0.0.0.0/0", "2000::/3"}


def test_an_engine_reaches_no_private_network() -> None:
    policies = {
        one["metadata"]["name"]: one["spec"]
        for one in yaml.safe_load_all(NETWORK.read_text(encoding="utf-8"))
        if one
    }
    everywhere = policies["to-router"]["egress"][-1]

    assert everywhere["ports"] == [{"port": 443}]
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} <= set(everywhere["to"][0]["ipBlock"]["except"])
    assert policies["to-router-head"]["podSelector"]["matchLabels"]["to-router/group"] == "head"


@pytest.mark.parametrize("value", ["x" * 63, "A.b_c", "1e3"])
def test_a_label_that_kubernetes_takes_names_a_group(value: str) -> None:
    names = [group["groupName"] for group in cluster(labelled(value))["workerGroupSpecs"]]

    assert pool_name(demands(labelled(value))[2]) in names


def test_labels_too_long_together_are_one_clear_error() -> None:
    config = good()
    config["applications"][1]["args"]["pool"] = {"labels": {"zone": "a" * 40, "tier": "b" * 40}}

    with pytest.raises(BadRenderSettings, match=r"the pool of expert-sums.* has 81$"):
        cluster(config)


@pytest.mark.parametrize("value", ["数学", "x" * 64, "-a", "a b", ""])
def test_a_label_that_kubernetes_rejects_is_an_error(value: str) -> None:
    with pytest.raises(ValueError, match="a label has 1 to 63 letters"):
        cluster(labelled(value))


@pytest.mark.parametrize("name", ["x" * 48, "To-Router", "1a", "a_b", "a-"])
def test_a_name_that_kubernetes_rejects_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="Kubernetes takes 1 to 47 small letters"):
        RenderSettings(name=name)
