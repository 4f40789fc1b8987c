"""A RayService, its disruption budgets and its monitors, made from serve_config.yaml so that they agree.

Pure: plain objects in, plain objects out. The rest of a deployment (Redis, storage, routes) does not
depend on the configuration and is in cluster/kuberay/base.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from posixpath import join, normpath
from typing import Any

import yaml

from cluster.ingress import counts_file, key_file, log_folder, longest_response_s
from cluster.kuberay.pods import (
    DRAIN_MARGIN_S,
    IMAGE_ROOT,
    STATE_FOLDER,
    WORKER_PORTS,
    Surroundings,
    autoscaler,
    head_group,
    pod_labels,
    worker_group,
)
from cluster.kuberay.settings import BadRenderSettings, RenderSettings
from cluster.kuberay.worker_groups import worker_groups
from cluster.packing import demands
from cluster.transport import AUTH_MODE, HARD_STOP

RAY_VERSION = "2.60.0"
KEY_FILE = "/etc/to-router/keys/keys.json"
"""Where the reference configurations have the file of API keys."""


def render(
    config: Mapping[str, Any], settings: RenderSettings, flags: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return every object that depends on the configuration.

    Args:
        config: a serve_config.yaml that `check` passes.
        settings: image, pod sizes, storage.
        flags: the environment of the transport, for head and workers.
    """
    groups = worker_groups(demands(config), settings)
    # `authOptions` makes the operator set the mode and the token of every pod.
    flags = {name: value for name, value in flags.items() if name != AUTH_MODE}
    longest = longest_response_s(config)
    flags[HARD_STOP] = str(longest)
    port = int((config.get("http_options") or {}).get("port", WORKER_PORTS["serve"]))
    around = Surroundings(port=port, key_file=_key_file(config), longest_response_s=longest)
    _check_state(config)
    service = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": settings.name, "labels": pod_labels(settings)},
        "spec": {
            "serveConfigV2": serve_config(config),
            # A change of pods builds a second cluster, waits for it, then switches over.
            "upgradeStrategy": {"type": "NewCluster"},
            # The old one ends the requests that it has.
            "rayClusterDeletionDelaySeconds": longest + DRAIN_MARGIN_S,
            "excludeHeadPodFromServeSvc": True,
            "rayClusterConfig": {
                "rayVersion": _ray_version(),
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": autoscaler(),
                "authOptions": {"mode": "token"},
                "gcsFaultToleranceOptions": {
                    "backend": "redis",
                    "redisAddress": settings.redis_address,
                    "redisPassword": {
                        "valueFrom": {"secretKeyRef": {"name": settings.redis_secret, "key": "password"}}
                    },
                },
                "headGroupSpec": head_group(settings, flags, port),
                "workerGroupSpecs": [worker_group(group, settings, flags, around) for group in groups],
            },
        },
    }
    budgets = [_budget("head", 1, settings)]
    # With a minimum of one pod, the budget delays the drain of a node: better than a missing expert.
    budgets += [_budget(g.name, max(g.low - 1, 1), settings) for g in groups if g.low]
    return [service, *budgets, *_monitors(settings)]


def _key_file(config: Mapping[str, Any]) -> PurePosixPath | None:
    """Return the file of API keys on pods.

    Raises:
        BadRenderSettings: the file would be inside the image.
    """
    name = key_file(config)
    if name is None:
        return None
    file = PurePosixPath(name)
    if not file.is_absolute() or file.is_relative_to(IMAGE_ROOT) or len(file.parts) < 3:
        raise BadRenderSettings(
            f"keys.file {name!r} must be in a folder of its own outside {IMAGE_ROOT}, such as {KEY_FILE}: "
            "the Secret is mounted there"
        )
    return file


def _check_state(config: Mapping[str, Any]) -> None:
    """Check that what the ingress writes is on the claim, not on a disk that a pod takes with it.

    Raises:
        BadRenderSettings: a file or folder is elsewhere, where it could not even be written.
    """
    for key, path in (("keys.counts", counts_file(config)), ("log.folder", log_folder(config))):
        if path is not None and not PurePosixPath(normpath(join(IMAGE_ROOT, path))).is_relative_to(
            STATE_FOLDER
        ):
            raise BadRenderSettings(
                f"{key} {path!r} must be below {STATE_FOLDER}, where the claim for state is mounted, such as "
                "var/keys.counts.json: the rest of a pod's disk is read-only"
            )


def serve_config(config: Mapping[str, Any]) -> str:
    """Return the configuration for the manifest: the same, but listening on the pod's own network."""
    http = {**(config.get("http_options") or {}), "host": "0.0.0.0"}  # noqa: S104 - a pod's own network
    return yaml.dump(
        {**config, "http_options": http}, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110
    )


def manifest(objects: list[dict[str, Any]], source: str) -> str:
    """Return the objects as YAML documents, with a header that names the source."""
    head = f"# Rendered by `to-router render kuberay {source}`: change that file, not this one.\n"
    return head + "---\n".join(
        yaml.dump(one, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110) for one in objects
    )


class _Plain(yaml.SafeDumper):
    """Multi-line texts as blocks and no anchors, for people and for kustomize."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)


def _ray_version() -> str:
    try:
        return version("ray")
    except PackageNotFoundError:
        return RAY_VERSION


def _budget(group: str, available: int, settings: RenderSettings) -> dict[str, Any]:
    # KubeRay's pods have no scale subresource, so only a number of available pods is allowed here.
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": f"{settings.name}-{group}", "labels": pod_labels(settings, group)},
        "spec": {"minAvailable": available, "selector": {"matchLabels": pod_labels(settings, group)}},
    }


def _monitors(settings: RenderSettings) -> list[dict[str, Any]]:
    ray = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {
            "name": f"{settings.name}-ray",
            "labels": {**pod_labels(settings), "release": "prometheus"},
        },
        "spec": {
            "selector": {"matchLabels": pod_labels(settings)},
            "podMetricsEndpoints": [
                {"port": port, "interval": "15s"} for port in ("metrics", "as-metrics", "dash-metrics")
            ],
        },
    }
    return [ray]


def read_config(file: Path) -> dict[str, Any]:
    """Read a configuration that `check` passes."""
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    return dict(data)
