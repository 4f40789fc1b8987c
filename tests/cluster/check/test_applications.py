"""One application of a configuration: whose it is, its options and its elasticity."""

from importlib import import_module
from typing import Any

import pytest

from cluster.check.applications import BUILDER_OPTIONS, MODELS, check_application
from tests.cluster.configs import expert, good


def findings(app: dict[str, Any]) -> list[tuple[str, str]]:
    return [(f.level, f.key.removeprefix("app.")) for f in check_application(app, "app")]


@pytest.mark.parametrize("path", MODELS)
def test_every_import_path_names_a_builder(path: str) -> None:
    module, _, name = path.partition(":")

    assert callable(getattr(import_module(module), name))


def test_an_application_of_another_project_is_not_checked() -> None:
    app = {"name": "other", "import_path": "other:app", "args": {"x": 1}, "deployments": [{"name": "X"}]}

    assert findings(app) == [("warning", "import_path")]


@pytest.mark.parametrize("option", sorted(BUILDER_OPTIONS))
def test_an_option_of_the_builder_is_an_error(option: str) -> None:
    app = expert("sums")
    app["deployments"][0][option] = {}

    assert findings(app) == [("error", f"deployments[Expert].{option}")]


@pytest.mark.parametrize(("name", "level"), [("Ingress", "error"), ("Router", "warning")])
def test_a_missing_deployment_gets_serves_defaults(name: str, level: str) -> None:
    app = good()["applications"][0]
    app["deployments"] = [d for d in app["deployments"] if d["name"] != name]

    assert findings(app) == [(level, "deployments")]


def test_fixed_and_elastic_replicas_conflict() -> None:
    app = good()["applications"][0]
    app["deployments"][1]["autoscaling_config"] = {"min_replicas": 1, "max_replicas": 2}

    assert findings(app) == [("error", "deployments[Router].num_replicas")]
