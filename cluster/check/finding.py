"""Result of a check; knows nothing of the check itself."""

from dataclasses import dataclass
from typing import Literal, Self


@dataclass(frozen=True, slots=True)
class Finding:
    """One error or warning: the key, what is wrong, and what to do."""

    level: Literal["error", "warning"]
    key: str
    message: str

    @classmethod
    def wrong(cls, key: str, value: object, expected: str) -> Self:
        """The error for a value of another kind.

        Args:
            key: of the value; empty for the whole file.
            value: as the file has it.
            expected: what it must be.
        """
        found = "it is empty" if value is None else f"not {value!r:.60}"
        return cls("error", key or "the file", f"must be {expected}, {found}")

    @property
    def is_error(self) -> bool:
        """Whether the configuration must not be deployed."""
        return self.level == "error"

    def __str__(self) -> str:
        return f"{self.level}: {self.key}: {self.message}"
