"""Check a serve_config.yaml against the RayService in a file of Kubernetes manifests. Changes nothing."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.check.finding import Finding
from cluster.check.nodes import check_counts, check_fit
from cluster.packing import Nodes, ReplicaDemand
from router.errors import RouterError

MEANT_TO_DIFFER = ("http_options",)
"""Pods listen on every interface of their own network: host and port are the manifest's."""
STARTED_WITH = ("num-cpus", "num-gpus", "memory", "resources")
"""Parameters of `ray start` that KubeRay rejects beside a group's own `resources`."""
SUFFIXES = {
    "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30,
    "Ti": 2.0**40,
}  # fmt: skip


class ManifestUnreadable(RouterError):
    """The file holds no RayService to check."""


def check_manifest(
    config: Mapping[str, Any], demands: Sequence[ReplicaDemand], file: Path
) -> Iterator[Finding]:
    """Compare the configuration with the RayService in a file of manifests.

    Raises:
        ManifestUnreadable: the file is not YAML, or does not hold exactly one RayService.
    """
    spec = ray_service(file).get("spec") or {}
    inside = yaml.safe_load(spec.get("serveConfigV2") or "") or {}
    for key in sorted((config.keys() | inside.keys()) - set(MEANT_TO_DIFFER)):
        if config.get(key) != inside.get(key):
            message = f"differs from the configuration in {key}: render the manifest again"
            yield Finding("error", "serveConfigV2", f"{message} ({file.name})")
    cluster = spec.get("rayClusterConfig") or {}
    for key, message in doubled_resources(cluster):
        yield Finding("error", key, f"{message} ({file.name})")
    head = cluster.get("headGroupSpec") or {}
    if _resources(head).get("CPU", 1.0) > 0:
        message = 'gives the head CPUs, so replicas may run there: set its resources to CPU "0"'
        yield Finding("warning", "headGroupSpec", f"{message} ({file.name})")
    groups = [
        Nodes(
            name=str(group.get("groupName")),
            labels=dict(group.get("labels") or {}),
            resources=_resources(group),
            low=int(group.get("minReplicas", 0)),
            high=int(group.get("maxReplicas", 0)),
        )
        for group in cluster.get("workerGroupSpecs") or []
    ]
    grows = bool(cluster.get("enableInTreeAutoscaling"))
    if not grows:
        message = "is off: worker groups never grow with Serve's replicas"
        yield Finding("warning", "enableInTreeAutoscaling", f"{message} ({file.name})")
    yield from check_fit(demands, groups, where=file.name)
    yield from check_counts(config, demands, groups, where=file.name)


def ray_service(file: Path) -> dict[str, Any]:
    """Return the one RayService of a file of manifests.

    Raises:
        ManifestUnreadable: the file is not YAML, or does not hold exactly one RayService.
    """
    try:
        documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise ManifestUnreadable(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    flat = [
        item
        for document in documents
        if isinstance(document, dict)
        for item in (document.get("items", []) if document.get("kind") == "List" else [document])
    ]
    services = [item for item in flat if item.get("kind") == "RayService"]
    if len(services) != 1:
        raise ManifestUnreadable(f"{file} holds {len(services)} RayService objects, expected one")
    return dict(services[0])


def doubled_resources(cluster: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the groups of a `rayClusterConfig` that define their resources twice, each with what to do.

    KubeRay rejects the whole RayService for it.
    """
    groups = [("headGroupSpec", cluster.get("headGroupSpec") or {})]
    groups += [(f"workerGroupSpecs[{g.get('groupName')}]", g) for g in cluster.get("workerGroupSpecs") or []]
    for key, group in groups:
        started = group.get("rayStartParams") or {}
        if group.get("resources") and (twice := [name for name in STARTED_WITH if started.get(name)]):
            message = f"{', '.join(twice)} beside `resources`, which KubeRay rejects: keep only `resources`"
            yield f"{key}.rayStartParams", message


def _resources(group: Mapping[str, Any]) -> dict[str, float]:
    """Return the resources that Ray will report for a pod of the group; explicit ones override limits."""
    containers = ((group.get("template") or {}).get("spec") or {}).get("containers") or [{}]
    container = containers[0].get("resources") or {}
    limits = {**(container.get("requests") or {}), **(container.get("limits") or {})}
    resources = {"CPU": quantity(limits.get("cpu", 0)), "memory": quantity(limits.get("memory", 0))}
    resources["GPU"] = sum((quantity(v) for k, v in limits.items() if k.endswith("/gpu")), 0.0)
    started = group.get("rayStartParams") or {}
    if "num-cpus" in started:
        resources["CPU"] = float(started["num-cpus"])
    if "num-gpus" in started:
        resources["GPU"] = float(started["num-gpus"])
    if "resources" in started:
        # KubeRay needs this JSON in further quotes, because it passes through a shell.
        resources |= {
            k: float(v) for k, v in json.loads(started["resources"].strip("'\"").replace("\\", "")).items()
        }
    resources |= {name: quantity(value) for name, value in (group.get("resources") or {}).items()}
    return resources


def quantity(text: object) -> float:
    """Return a Kubernetes quantity as a number: `500m` → 0.5, `8Gi` → 8·2³⁰."""
    number = str(text)
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if number.endswith(suffix):
            return float(number.removesuffix(suffix)) * SUFFIXES[suffix]
    return float(number)
