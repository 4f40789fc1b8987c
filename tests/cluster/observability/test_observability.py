"""Dashboards and alerts: on metrics that exist, and alerts that fire on what they are for."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from cluster.observability import dashboards
from deployments.observability import metrics

FOLDER = Path(dashboards.__file__).parent
RULES = yaml.safe_load((FOLDER / "rules.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
SERIES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: the package prometheus)"
)


def emitted() -> dict[str, set[str]]:
    """Series of our own metrics → their labels."""
    found: dict[str, set[str]] = {}
    for metric in metrics.registry.collect():
        labels = set(getattr(metrics.registry._names_to_collectors.get(metric.name), "_labelnames", ()))
        for suffix in SERIES.get(metric.type, ()):
            found[f"{metric.name}{suffix}"] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


def engine_series() -> set[str]:
    """Series that the installed vLLM emits, read from its source."""
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed: its metric names cannot be read")
    source = (Path(spec.origin).parent / "v1" / "metrics" / "loggers.py").read_text(encoding="utf-8")
    found = set()
    for kind, name in re.findall(r'self\._(counter|gauge|histogram)_cls\(\s*name="(vllm:\w+)"', source):
        found |= {name + suffix for suffix in SERIES[kind]}
    return found


def queries() -> Iterator[tuple[str, str]]:
    for name, board in dashboards.dashboards().items():
        for panel in board["panels"]:
            for query in panel["queries"].values():
                yield f"{name}: {panel['title']}", query
    for rule in RULES:
        yield rule["alert"], rule["expr"]


@pytest.mark.parametrize(("where", "query"), list(queries()))
def test_every_metric_and_label_of_a_query_is_emitted(where: str, query: str) -> None:
    ours = emitted()
    used = set(re.findall(r"\b(?:to_router_|vllm:)\w+", query))

    assert used, f"{where} asks no metric of ours or vLLM's"
    for name in used:
        assert name in ours or name in engine_series(), f"{where}: nobody emits {name}"
    known = {"replica", "model_name", "le"} | {label for name in used for label in ours.get(name, ())}
    grouped = {
        label for by in re.findall(r"by \(([^)]*)\)", query) for label in by.replace(" ", "").split(",")
    }
    matched = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", query))
    assert grouped | matched <= known, f"{where}: no such label"


def test_the_committed_dashboards_are_what_the_panels_say() -> None:
    for name in dashboards.dashboards():
        file = FOLDER / "grafana" / f"{name}.json"
        assert file.read_text(encoding="utf-8") == dashboards.text(name), (
            "run `python -m cluster.observability.dashboards`"
        )


def test_panels_of_a_dashboard_do_not_overlap() -> None:
    for name in dashboards.dashboards():
        places = [
            (panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboards.dashboard(name)["panels"]
        ]

        assert len(set(places)) == len(places)


def test_every_alert_says_how_urgent_it_is_and_what_to_look_at() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in {"page", "ticket", "note"}
        assert rule["annotations"].keys() == {"summary", "description"}


def test_every_alert_has_a_test_that_it_fires_and_one_that_it_is_silent() -> None:
    tests = yaml.safe_load((FOLDER / "rules_test.yaml").read_text(encoding="utf-8"))["tests"]
    fires: dict[bool, set[str]] = {True: set(), False: set()}
    for one in tests:
        asked = one["alert_rule_test"][0]
        fires[bool(asked["exp_alerts"])].add(asked["alertname"])

    assert fires == {True: {rule["alert"] for rule in RULES}, False: {rule["alert"] for rule in RULES}}


@needs_promtool
@pytest.mark.parametrize(
    "command",
    [
        ["check", "rules", "rules.yaml"],
        ["test", "rules", "rules_test.yaml"],
        ["check", "config", "prometheus.yaml"],
    ],
    ids=" ".join,
)
def test_promtool_passes(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=FOLDER, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_kubernetes_rule_is_the_same_as_the_file() -> None:
    made = yaml.safe_load((FOLDER.parent / "kuberay" / "base" / "rules.yaml").read_text(encoding="utf-8"))

    assert made["spec"] == yaml.safe_load((FOLDER / "rules.yaml").read_text(encoding="utf-8"))
