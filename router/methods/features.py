"""What a query's text shows beside its embedding: hashed words and word pairs, and its surface.

Pure Python and numpy, equal in every process (Python's own `hash` is not).
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from zlib import crc32

import numpy as np

from router.core import FloatArray, IntArray

WORDS = 1 << 15
"""Columns of the hashed words (feature hashing: Weinberger et al., ICML 2009)."""
READ_CHARACTERS = 8_000
"""A longer text is read this far."""
_WORD = re.compile(r"\w+|[^\w\s]")
_DIGITS = re.compile(r"\d")
_WITHOUT_SIGNS = dict.fromkeys(map(ord, "{}[]()=<>+*/^\\$_"))
_OPTION = re.compile(r"(?m)^\s*\(?[A-J][.):]")


def hashed_words(text: str) -> tuple[IntArray, FloatArray]:
    """(columns, values) of a text's words and neighbouring pairs; values of unit length.

    Counts are damped, 1 + log n, as for tf-idf without the idf.
    """
    words = _WORD.findall(text[:READ_CHARACTERS].lower())
    counts: dict[int, int] = {}
    for word in words:
        column = crc32(word.encode("utf-8", "replace")) % WORDS
        counts[column] = counts.get(column, 0) + 1
    for first, second in pairwise(words):
        column = crc32(f"{first} {second}".encode("utf-8", "replace")) % WORDS
        counts[column] = counts.get(column, 0) + 1
    columns = np.fromiter(counts, dtype=np.int64, count=len(counts))
    values = 1.0 + np.log(np.fromiter(counts.values(), dtype=np.float64, count=len(counts)))
    return columns, values / max(float(np.linalg.norm(values)), 1e-12)


def surface(texts: Sequence[str]) -> FloatArray:
    """Length, digits, lines, options and the like, [n, 9]; roughly between 0 and 3."""
    rows = np.empty((len(texts), 9))
    for row, whole in enumerate(texts):
        text = whole[:READ_CHARACTERS]
        size = max(len(text), 1)
        words = text.split()
        rows[row] = (
            np.log1p(len(whole)) / 3,
            np.log1p(len(_DIGITS.findall(text))) / 2,
            np.log1p(text.count("\n")) / 2,
            np.log1p(len(_OPTION.findall(text))) / 2,
            len("".join(words)) / max(len(words), 1) / 5,
            3 * sum(map(str.isupper, text)) / size,
            10 * (len(text) - len(text.translate(_WITHOUT_SIGNS))) / size,
            3 * (len(text) - len(text.encode("ascii", "ignore"))) / size,
            np.log1p(text.count("?")),
        )
    return rows
