"""A fault that a check found; knows nothing of how it was found."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: where it stands, what it is, what to do."""

    level: Literal["error", "warning"]
    key: str
    message: str

    @property
    def is_error(self) -> bool:
        return self.level == "error"

    def __str__(self) -> str:
        return f"{self.level}: {self.key}: {self.message}"
