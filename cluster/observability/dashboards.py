"""Grafana dashboards as code: `python -m cluster.observability.dashboards` writes them into grafana/.

Panels are defined in panels.yaml, their layout here. Contains no metric names.
"""

import json
from pathlib import Path
from typing import Any

import yaml

PANELS = Path(__file__).with_name("panels.yaml")
FOLDER = Path(__file__).with_name("grafana")
WIDTH, HEIGHT, PER_ROW = 12, 8, 2
SOURCE = {"type": "prometheus", "uid": "${source}"}


def dashboards() -> dict[str, Any]:
    """Return title and panels of each dashboard by name."""
    data: dict[str, Any] = yaml.safe_load(PANELS.read_text(encoding="utf-8"))
    return data


def dashboard(name: str) -> dict[str, Any]:
    """Return one dashboard as Grafana imports it."""
    data = dashboards()[name]
    return {
        "uid": f"to-router-{name}",
        "title": data["title"],
        "tags": ["to-router"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Data source"}]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(data["panels"])],
    }


def _panel(number: int, panel: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": number + 1,
        "title": panel["title"],
        "description": panel.get("about", ""),
        "type": "timeseries",
        "datasource": SOURCE,
        "gridPos": {
            "x": number % PER_ROW * WIDTH,
            "y": number // PER_ROW * HEIGHT,
            "w": WIDTH,
            "h": HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": panel["unit"], "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for index, (legend, query) in enumerate(panel["queries"].items())
        ],
    }


def text(name: str) -> str:
    """Return the text of a dashboard's file."""
    return json.dumps(dashboard(name), indent=1) + "\n"


if __name__ == "__main__":
    for each in dashboards():
        (FOLDER / f"{each}.json").write_text(text(each), encoding="utf-8")
