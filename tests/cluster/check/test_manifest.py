"""`to-router check` against the worker groups of a RayService manifest."""

from pathlib import Path
from typing import Any

import pytest

from cluster.check.config import check_file
from cluster.check.manifest import ManifestUnreadable, quantity
from cluster.kuberay.rayservice import manifest, render
from cluster.kuberay.settings import RenderSettings
from tests.cluster.check.test_config import errors, scale
from tests.cluster.configs import good, written


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
    ("change", "expected"),
    [
        ({"sums__maxReplicas": 1}, "max_replicas 2 fit"),
        ({"sums__labels": {"pool": "other"}}, "no node of pool pool=sums"),
        ({"sums__resources": {"CPU": "8", "GPU": "0"}}, "needs 1 GPU on one node"),
    ],
)
def test_a_worker_group_that_is_too_small_is_named(
    change: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    config = good()
    # At a maximum of one pod the group does not grow, and the other groups must not hide that.
    file = rendered(config, tmp_path, **change)
    messages = [f.message for f in check_file(written(config, tmp_path), kuberay=file)]

    assert any(expected in message for message in messages)


def test_a_manifest_of_another_configuration_is_an_error(tmp_path: Path) -> None:
    file = rendered(good(), tmp_path)
    changed = good()
    scale(changed)["max_ongoing_requests"] = 99

    findings = errors(changed, tmp_path, kuberay=file)

    assert any(key == "serveConfigV2" and "applications" in message for key, message in findings)


def test_a_group_that_kuberay_rejects_is_named(tmp_path: Path) -> None:
    file = rendered(good(), tmp_path, sums__rayStartParams={"num-gpus": "1"})

    findings = errors(good(), tmp_path, kuberay=file)

    assert [key for key, _ in findings] == ["workerGroupSpecs[sums].rayStartParams"]
    assert "num-gpus beside `resources`" in findings[0][1]


@pytest.mark.parametrize("text", ["a: [", "kind: Pod\n", ""])
def test_a_file_without_a_ray_service_is_one_clear_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "ray.yaml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ManifestUnreadable, match=r"ray\.yaml"):
        check_file(written(good(), tmp_path), kuberay=file)


@pytest.mark.parametrize(("text", "value"), [("500m", 0.5), ("8Gi", 2**33), ("4", 4), ("1k", 1000)])
def test_quantities_are_read_as_kubernetes_means_them(text: str, value: float) -> None:
    assert quantity(text) == value
