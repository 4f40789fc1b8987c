"""The YAML of a configuration: keys that are duplicated or no text, with their lines, and its shape.

YAML keeps the last of two equal keys silently, and does not read `no`, `1.5` and
`2024-01-01` as text.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from cluster.check.finding import Finding

MERGE = "tag:yaml.org,2002:merge"


def read(text: str) -> tuple[Any, list[Finding]]:
    """Return a document and the errors of its keys.

    Raises:
        yaml.YAMLError: the text is not YAML.
        ValueError: a date does not exist.
        RecursionError: it is nested too deeply.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data(), loader.findings
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.findings: list[Finding] = []

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # Called once for each mapping, before merge keys are replaced: those may repeat keys on purpose.
        first: dict[Any, int] = {}
        for name, _ in node.value:
            if name.tag == MERGE or not isinstance(name, yaml.ScalarNode):
                continue
            line, key = name.start_mark.line + 1, self.construct_object(name)
            if not isinstance(key, str):
                message = f"{name.value} is not text for YAML: put the key in quotes"
                self.findings.append(Finding("error", f"line {line}", message))
            elif key in first:
                message = f"{key!r} is duplicated: it is on line {first[key]} already"
                self.findings.append(Finding("error", f"line {line}", message))
            first.setdefault(key, line)
        super().flatten_mapping(node)


def shape(data: object) -> Iterator[Finding]:
    """Find the parts that are not of the kind that the other checks read."""
    if not isinstance(data, Mapping):
        yield _wrong("", data, "an object")
        return
    yield from _optional(data, "http_options", "")
    applications = data.get("applications")
    if not isinstance(applications, list) or not all(isinstance(app, Mapping) for app in applications):
        yield Finding("error", "applications", "must be a list of applications")
        return
    for index, app in enumerate(applications):
        where = f"applications[{index}]"
        yield from _texts(app, ("name", "import_path"), where)
        yield from _optional(app, "args", where)
        deployments = app.get("deployments")
        if deployments is None:
            continue
        if not isinstance(deployments, list) or not all(isinstance(one, Mapping) for one in deployments):
            yield _wrong(f"{where}.deployments", deployments, "a list of deployments")
            continue
        for number, deployment in enumerate(deployments):
            key = f"{where}.deployments[{number}]"
            yield from _texts(deployment, ("name",), key)
            yield from _optional(deployment, "user_config", key)
            yield from _optional(deployment, "autoscaling_config", key)


def _texts(data: Mapping[str, Any], names: tuple[str, ...], where: str) -> Iterator[Finding]:
    for name in names:
        if name in data and not isinstance(data[name], str):
            yield _wrong(f"{where}.{name}", data[name], "text: put it in quotes")


def _optional(data: Mapping[str, Any], name: str, where: str) -> Iterator[Finding]:
    if data.get(name) is not None and not isinstance(data[name], Mapping):
        yield _wrong(f"{where}.{name}".lstrip("."), data[name], "an object")


def _wrong(key: str, value: object, expected: str) -> Finding:
    return Finding("error", key or "the file", f"must be {expected}, not {value!r:.60}")
