"""The base class of all settings, and the paths of the project.

Pure pydantic: knows nothing of what is configured.
"""

import os
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

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
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        # Lax pydantic takes `true` for 1 and "10" for 10; in a file, each is more likely an error.
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool | str) and _is_number(field.annotation):
            raise PydanticCustomError("float_type", "Input should be a number")
        return value


def _is_number(annotation: Any) -> bool:
    """Whether a type is a number, perhaps optional or with bounds."""
    parts = [part for part in get_args(annotation) if part is not NoneType]
    if get_origin(annotation) is Annotated:
        return _is_number(parts[0])
    if get_origin(annotation) in {Union, UnionType}:
        return all(_is_number(part) for part in parts)
    return annotation in {int, float}
