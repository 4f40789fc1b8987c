"""The base class of all settings, and the paths of the project.

Pure pydantic: knows nothing of what is configured.
"""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

ROOT_VARIABLE = "TO_ROUTER_ROOT"
STATE_VARIABLE = "TO_ROUTER_STATE"


def project_root() -> Path:
    """Where relative paths of the configuration start: `TO_ROUTER_ROOT`, else beside the packages."""
    return Path(os.environ.get(ROOT_VARIABLE) or Path(__file__).resolve().parent.parent)


def resolve(path: str) -> Path:
    """A configured path, absolute; never relative to a worker's current folder."""
    return (project_root() / path).resolve()


def state_folder() -> Path:
    """Where deployments keep what must outlive their replicas: `TO_ROUTER_STATE`, else `var/state`."""
    return resolve(os.environ.get(STATE_VARIABLE) or "var/state")


class Settings(BaseModel):
    """A frozen group of settings that rejects unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True
    )
