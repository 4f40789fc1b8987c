"""Result of a check; knows nothing of the check itself."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One error or warning: the key, what is wrong, and what to do."""

    level: Literal["error", "warning"]
    key: str
    message: str

    @property
    def is_error(self) -> bool:
        """Whether the configuration must not be deployed."""
        return self.level == "error"

    def __str__(self) -> str:
        return f"{self.level}: {self.key}: {self.message}"
