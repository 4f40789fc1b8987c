"""The YAML of a configuration: keys that are duplicated or no text, with their lines, and its shape.

YAML keeps the last of two equal keys silently, does not read `no`, `1.5` and `2024-01-01` as text, and
reads `010` as 8 and `1:30` as 90.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from cluster.check.finding import Finding

LOCATIONS = ("EveryNode", "HeadOnly", "Disabled")
"""Where Serve runs HTTP proxies."""
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
        node = loader.get_single_node()
        if node is None:
            return None, []
        if circular := _circular(node, frozenset(), set()):
            return None, [circular]
        return loader.construct_document(node), loader.findings
    finally:
        loader.dispose()


def _circular(node: yaml.Node, above: frozenset[int], known: set[int]) -> Finding | None:
    """Return the first alias of an object inside that object; what reads it would never end."""
    if id(node) in above:
        return Finding("error", f"line {node.start_mark.line + 1}", "contains an alias of itself")
    if id(node) in known or isinstance(node, yaml.ScalarNode):
        return None
    known.add(id(node))
    parts = (
        [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    )
    inside = (_circular(part, above | {id(node)}, known) for part in parts)
    return next((finding for finding in inside if finding is not None), None)


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

    def plain_number(self, node: yaml.ScalarNode) -> int | float:
        """Read a number; `010` and `1:30`, which are 8 and 90 for YAML, are errors."""
        is_whole = node.tag.endswith(":int")
        value: int | float = self.construct_yaml_int(node) if is_whole else self.construct_yaml_float(node)
        if ":" in node.value or (is_whole and re.fullmatch(r"[-+]?0[0-9_]+", node.value)):
            message = f"{node.value} is {value} for YAML: write the number without leading zeros and colons"
            self.findings.append(Finding("error", f"line {node.start_mark.line + 1}", message))
        return value


for kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{kind}", _Loader.plain_number)


def shape(data: object) -> Iterator[Finding]:
    """Find the parts that are not of the kind that the other checks read."""
    if not isinstance(data, Mapping):
        yield Finding.wrong("", data, "an object with `applications`")
        return
    yield from _optional(data, "http_options", "")
    if isinstance(http := data.get("http_options"), Mapping):
        yield from _texts(http, ("host",), "http_options")
    if data.get("proxy_location", LOCATIONS[0]) not in LOCATIONS:
        yield Finding.wrong("proxy_location", data["proxy_location"], f"one of {', '.join(LOCATIONS)}")
    applications = data.get("applications")
    if not isinstance(applications, list) or not all(isinstance(app, Mapping) for app in applications):
        yield Finding("error", "applications", "must be a list of applications")
        return
    for index, app in enumerate(applications):
        where = f"applications[{index}]"
        yield from _texts(app, ("name", "import_path"), where)
        yield from _optional(app, "args", where)
        prefix = app.get("route_prefix")
        if prefix is not None and not (isinstance(prefix, str) and prefix.startswith("/")):
            yield Finding.wrong(f"{where}.route_prefix", prefix, "null, or text that begins with /")
        deployments = app.get("deployments")
        if deployments is None:
            continue
        if not isinstance(deployments, list) or not all(isinstance(one, Mapping) for one in deployments):
            yield Finding.wrong(f"{where}.deployments", deployments, "a list of deployments")
            continue
        for number, deployment in enumerate(deployments):
            key = f"{where}.deployments[{number}]"
            yield from _texts(deployment, ("name",), key)
            yield from _optional(deployment, "user_config", key)
            yield from _optional(deployment, "autoscaling_config", key)


def _texts(data: Mapping[str, Any], names: tuple[str, ...], where: str) -> Iterator[Finding]:
    for name in names:
        if name in data and not isinstance(data[name], str):
            yield Finding.wrong(f"{where}.{name}", data[name], "text: put it in quotes")


def _optional(data: Mapping[str, Any], name: str, where: str) -> Iterator[Finding]:
    if data.get(name) is not None and not isinstance(data[name], Mapping):
        yield Finding.wrong(f"{where}.{name}".lstrip("."), data[name], "an object")
