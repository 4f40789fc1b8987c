"""Which keys and names the installed Ray and vLLM take, read from their sources as text.

Imports neither, so that a check costs no gigabyte; an installation without them knows no keys.
"""

import ast
import importlib.util
from functools import cache
from pathlib import Path

SERVE_SCHEMAS = {
    "deploy": ("serve/schema.py", "ServeDeploySchema"),
    "http": ("serve/schema.py", "HTTPOptionsSchema"),
    "application": ("serve/schema.py", "ServeApplicationSchema"),
    "deployment": ("serve/schema.py", "DeploymentSchema"),
    "autoscaling": ("serve/config.py", "AutoscalingConfig"),
}
"""Where the installed Ray says which keys Serve takes; read as text, so that nothing heavy is imported."""
ENGINE_CLASSES = (
    ("engine/arg_utils.py", "AsyncEngineArgs"),
    ("engine/arg_utils.py", "EngineArgs"),
    ("entrypoints/launchers/cli_args.py", "BaseFrontendArgs"),
    ("entrypoints/launchers/cli_args.py", "FrontendArgs"),
)
"""The same for the engine arguments of the installed vLLM."""


def engine_arguments() -> frozenset[str]:
    """Engine and front-end arguments that vLLM knows; empty where vLLM is not installed."""
    return frozenset().union(*(fields("vllm", module, name) for module, name in ENGINE_CLASSES))


@cache
def fields(package: str, module: str, class_name: str) -> frozenset[str]:
    """Annotated fields of a class, read from its source; empty where the package is not installed."""
    file = _source(package, module)
    if file is None:
        return frozenset()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return frozenset(
                item.target.id
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            )
    return frozenset()


@cache
def accelerators() -> frozenset[str]:
    """Types of accelerators that Ray knows by name; empty where Ray is not installed."""
    file = _source("ray", "util/accelerators/accelerators.py")
    if file is None:
        return frozenset()
    return frozenset(
        node.value.value
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _source(package: str, module: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    file = Path(spec.origin).parent / module if spec is not None and spec.origin is not None else None
    return file if file is not None and file.is_file() else None


def serve_keys(schema: str) -> frozenset[str]:
    """Keys that Serve takes at one level of its configuration, by the names in `SERVE_SCHEMAS`."""
    return fields("ray", *SERVE_SCHEMAS[schema])
