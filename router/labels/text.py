"""Labels from the text alone: equal, contained, the same number, the same choice."""

import math
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from router.core import FloatArray
from router.validation import NotNegative

_SEPARATOR = r"(?:,\\!|\{?\\?,\}?|\\[;:!> ]|['’\u00a0\u2005-\u200a\u202f\u205f])"
"""Between groups of three digits, in text and in LaTeX; no plain space, which also separates numbers."""
_POWER = r"10\s?(?:(?:\^|\*\*)\s?\{?([-+]?\d+)|([⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+))"
_NUMBER = re.compile(
    rf"([-+]?)(?:{_POWER}"
    rf"|((?:\d{{1,3}}(?P<by>{_SEPARATOR})\d{{3}}(?:(?P=by)\d{{3}})*(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    rf"(?:[eE]([-+]?\d+)|\s?(?:×|·|\*|\\times|\\cdot)\s?{_POWER})?)"
)
"""Groups: sign, power of ten alone (two forms), digits, their separator, their power of ten (three forms)."""
_SEPARATORS = re.compile(_SEPARATOR)
_ON_THE_LINE = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")
_NAMED_CHOICE = re.compile(
    r"\b(?:answer|choice|option)\b\s*(?:is\b|:)?[\s:*(]*([A-Z])(?!['’]?[A-Z0-9])", re.IGNORECASE
)
_LONE_CHOICE = re.compile(r"(?<![A-Za-z0-9])([A-Z])(?!['’]?[A-Za-z0-9])")
_GOES_ON = re.compile(r"[ \t]+\w")


def normal(text: str) -> str:
    """A text as it is compared: Unicode composed, case and space folded, a final full stop dropped."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".").strip()


class Exact:
    """1 when response and reference are equal but for case, space and a final full stop."""

    def label(
        self, responses: Sequence[str], references: Sequence[str], queries: Sequence[str]
    ) -> FloatArray:
        pairs = zip(responses, references, strict=True)
        return np.array([float(normal(response) == normal(reference)) for response, reference in pairs])


class Contains:
    """1 when the response contains the reference as whole words."""

    def label(
        self, responses: Sequence[str], references: Sequence[str], queries: Sequence[str]
    ) -> FloatArray:
        def holds(response: str, reference: str) -> bool:
            wanted = normal(reference)
            return (
                bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", normal(response)) is not None
            )

        return np.array([float(holds(a, b)) for a, b in zip(responses, references, strict=True)])


class Numeric:
    """1 when the response's last number equals the reference's last number.

    Args:
        tolerance: relative difference that still counts as equal.
    """

    def __init__(self, tolerance: NotNegative = 1e-6) -> None:
        self.tolerance = tolerance

    def label(
        self, responses: Sequence[str], references: Sequence[str], queries: Sequence[str]
    ) -> FloatArray:
        def same(response: str, reference: str) -> bool:
            found, wanted = last_number(response), last_number(reference)
            if found is None or wanted is None:
                return False
            return math.isclose(found, wanted, rel_tol=self.tolerance, abs_tol=self.tolerance)

        return np.array([float(same(a, b)) for a, b in zip(responses, references, strict=True)])


class Choice:
    """1 when the response settles on the reference's letter, for multiple choice."""

    def label(
        self, responses: Sequence[str], references: Sequence[str], queries: Sequence[str]
    ) -> FloatArray:
        pairs = zip(responses, references, strict=True)
        return np.array([float(_letter(a) is not None and _letter(a) == _letter(b)) for a, b in pairs])


def last_number(text: str) -> float | None:
    """The last number of a text, without thousands separators, powers of ten applied.

    Returns:
        `None` where there is none, or where it is beyond every float.
    """
    found = _NUMBER.findall(text.replace("−", "-"))
    if not found:
        return None
    sign, *alone, digits, _, exponent, power, raised = found[-1]
    digits = _SEPARATORS.sub("", digits or "1")
    power = "".join((*alone, exponent, power, raised)) or "0"  # at most one of them is not empty
    value = float(f"{sign}{digits}e{power.translate(_ON_THE_LINE)}")
    return value if math.isfinite(value) else None


def _letter(text: str) -> str | None:
    """The letter that a response settles on: the last one named as the answer, else the last one alone.

    An "A" or "I" with which a phrase begins counts only where there is no other letter.
    """
    for pattern, words in ((_NAMED_CHOICE, "aiI"), (_LONE_CHOICE, "AI"), (_LONE_CHOICE, "I")):
        if letters := _letters(pattern, text, words=words):
            return letters[-1]
    return None


def _letters(pattern: re.Pattern[str], text: str, *, words: str) -> list[str]:
    """The letters that a pattern finds, without those of `words` that another word follows."""
    return [
        found[1].upper()
        for found in pattern.finditer(text)
        if found[1] not in words or not _GOES_ON.match(text, found.end(1))
    ]
