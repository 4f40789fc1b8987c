"""The base class of all settings, their errors in one line, and the paths of the project.

Pure pydantic: knows nothing of what is configured.
"""

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

ROOT_VARIABLE = "TO_ROUTER_ROOT"


def project_root() -> Path:
    """Where relative paths of the configuration start: `TO_ROUTER_ROOT`, else beside the packages."""
    return Path(os.environ.get(ROOT_VARIABLE) or Path(__file__).resolve().parent.parent)


def resolve(path: str) -> Path:
    """A configured path, absolute; never relative to a worker's current folder."""
    return (project_root() / path).resolve()


class Settings(BaseModel):
    """A frozen group of settings that rejects unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True
    )


def explain(error: ValidationError, where: str) -> str:
    """A pydantic error as one line a person can act on: the key, the expected value and the actual one."""
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in (where, *item["loc"]) if str(part))
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key")
        elif item["type"] == "missing":
            lines.append(f"{key}: missing")
        else:
            lines.append(f"{key}: {item['msg']}, found {_short(item.get('input'))}")
    return "; ".join(lines)


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
