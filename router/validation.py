"""Types that pydantic checks JSON and YAML values against, and its errors as one line for a person."""

import unicodedata
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PydanticUserError,
    Strict,
    TypeAdapter,
    ValidationError,
)

Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
"""A finite number; neither text nor a truth value becomes one."""
NotNegative = Annotated[Number, Field(ge=0)]
AmountUSD = NotNegative
Seconds = Annotated[Number, Field(gt=0)]
Count = Annotated[int, Strict(), Field(ge=1)]
"""A whole number from 1."""
HIDDEN = "hidden_value"
"""Type of an error whose value may be a secret, so that it is not shown."""
Name = Annotated[str, Field(min_length=1), AfterValidator(lambda name: _one_line(name))]  # noqa: PLW0108  # defined below
"""A text that a terminal, a log line and a metric's label can show."""
STRICT = ConfigDict(strict=True, allow_inf_nan=False)
CONTROL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Unicode categories of control, direction, surrogate, private and unassigned characters."""
LONGEST_VALUE = 80
"""Characters of an invalid value that an error shows."""


def check_type(value: Any, annotation: Any) -> None:
    """Check a value against an annotation, without conversions such as "10" to 10.

    Raises:
        ValidationError: it does not match.
    """
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=STRICT)
    except (PydanticUserError, NameError):
        return  # an annotation that pydantic does not know: any value is accepted
    adapter.validate_python(value)


def printable(text: str) -> str:
    """Text without control and direction characters, so that no name or answer can control a terminal."""
    return "".join(
        letter for letter in text if letter in "\n\t" or unicodedata.category(letter) not in CONTROL
    )


def _one_line(name: str) -> str:
    if printable(name) != name or name.split() != [*filter(None, name.split(" "))]:
        raise ValueError("a name holds no control character and no line break")
    return name


def explain(error: ValidationError, where: str = "") -> str:
    """A pydantic error as one line: for each invalid key what was expected and found.

    Args:
        error: what pydantic raised.
        where: a prefix of every key, such as the name of the object that was checked.
    """
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in (where, *item["loc"]) if str(part)) or "value"
        if item["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
            lines.append(f"{key}: unknown key")
        elif item["type"] == "missing":
            lines.append(f"{key}: missing")
        elif item["type"] == HIDDEN:
            lines.append(f"{key}: {item['msg']}")
        else:
            lines.append(f"{key}: {item['msg']}, found {shortened(item.get('input'))}")
    return "; ".join(lines)


def shortened(value: Any) -> str:
    """A value as text, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
