"""The hash of words before `features.hashed_words`, for policies that were saved with it.

Not to be changed: a saved policy's weights are at these columns.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from zlib import crc32

import numpy as np

from router.methods.features import READ_CHARACTERS, WORDS, HashedWords

_WORD = re.compile(r"\w+|[^\w\s]")


def crc32_words(texts: Sequence[str]) -> HashedWords:
    """Words, signs and neighbouring pairs of every text by column; values 1 + log count."""
    rows = [_counted(text) for text in texts]
    columns = [column for row in rows for column in row]
    counts = [count for row in rows for count in row.values()]
    return HashedWords(
        np.cumsum([0, *map(len, rows)]),
        np.array(columns, dtype=np.int64),
        1.0 + np.log(np.array(counts, dtype=np.float64)),
    )


def _counted(text: str) -> dict[int, int]:
    words = _WORD.findall(text[:READ_CHARACTERS].lower())
    counts: dict[int, int] = {}
    for term in [*words, *(f"{first} {second}" for first, second in pairwise(words))]:
        column = crc32(term.encode("utf-8", "replace")) % WORDS
        counts[column] = counts.get(column, 0) + 1
    return dict(sorted(counts.items()))
