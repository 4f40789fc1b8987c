"""Metrics: documented, used, and bounded in their labels."""

import re
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram

from deployments.observability import metrics

ROOT = Path(__file__).resolve().parents[3]
METRICS = {
    variable: metric
    for variable, metric in vars(metrics).items()
    if isinstance(metric, Counter | Gauge | Histogram)
}
ROW = re.compile(
    r"^\| `(?P<name>to_router_\w+)` \| (?P<labels>[^|]*) \| (?P<what>[^|]*) \| (?P<how>[^|]+) \|$"
)


def documented() -> dict[str, tuple[list[str], str, str]]:
    """Name → its labels, its meaning, how to read it, as docs/metrics.md has them."""
    lines = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines()
    rows = [match for line in lines if (match := ROW.match(line))]
    assert len(rows) == sum(line.startswith("| `to_router_") for line in lines)
    return {row["name"]: (re.findall(r"`(\w+)`", row["labels"]), row["what"], row["how"]) for row in rows}


def test_every_metric_is_documented_with_its_labels_and_nothing_else_is() -> None:
    emitted = {
        metric._name + ("_total" if isinstance(metric, Counter) else ""): (
            list(metric._labelnames),
            metric._documentation,
        )
        for metric in METRICS.values()
    }

    assert {name: told[:2] for name, told in documented().items()} == emitted
    assert all(how.strip() for _, _, how in documented().values())


@pytest.mark.parametrize("variable", METRICS)
def test_no_metric_is_dead(variable: str) -> None:
    used = re.compile(rf"metrics\.{variable}\b")
    sources = [file for file in (ROOT / "deployments").rglob("*.py") if file.name != "metrics.py"]

    assert any(used.search(file.read_text(encoding="utf-8")) for file in sources)


def test_labels_are_bounded() -> None:
    labels = {label for metric in METRICS.values() for label in metric._labelnames}

    assert labels == {
        "answer", "arm", "baseline", "bound", "cause", "code", "deployment", "direction", "expert", "key",
        "kind", "outcome", "part", "plan", "policy", "reason", "result", "stage", "state", "what",
    }  # fmt: skip
