"""Types that pydantic checks JSON and YAML values against, and its errors as one line for a person."""

from typing import Annotated, Any

from pydantic import Field, Strict, ValidationError

Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
"""A finite number; neither text nor a truth value becomes one."""
AmountUSD = Annotated[Number, Field(ge=0)]
Count = Annotated[int, Strict(), Field(ge=1)]
"""A whole number from 1."""
Name = Annotated[str, Field(min_length=1)]
HIDDEN = "hidden_value"
"""Type of an error whose value may be a secret, so that it is not shown."""
LONGEST_VALUE = 80
"""Characters of an invalid value that an error shows."""


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
