"""Features of a query's text beside its embedding: hashed words and word pairs, and its surface.

Hashes are those of a word's bytes, equal in every process (Python's `hash` is not).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import log1p

import numpy as np

from router.core import FloatArray, IntArray

WORDS = 1 << 15
"""Columns of the hashed words (feature hashing: Weinberger et al., ICML 2009)."""
READ_CHARACTERS = 8_000
"""A longer text is read this far."""
CHUNK = 256
"""Texts whose bytes are held in memory together, several numbers for each."""
FEW = 4
"""Texts up to which a look-up of each word is faster than arrays over all bytes."""
MOST_WORDS, LONGEST_WORD = 65_536, 32
"""Words whose hashes are kept at most, and their bytes: 10 MB."""
BASE = np.uint64(0x5851F42D4C957F2D)
"""Base of the rolling hash (Karp and Rabin 1987), modulo 2⁶⁴; odd, so that it has an inverse."""
MIX, PAIR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
"""Odd numbers that spread a hash over its upper bits, and distinguish a pair's first word from its second."""
MASK, SHIFT = (1 << 64) - 1, 64 - 15
"""64 bits, of which the upper ones are a column below `WORDS`."""


@dataclass(frozen=True, slots=True)
class HashedWords:
    """Sparse rows: text `i` has the entries `starts[i]:starts[i + 1]`, by rising column."""

    starts: IntArray  # [n + 1]
    columns: IntArray
    values: FloatArray

    def weighed(self, weights: FloatArray) -> "HashedWords":
        """Values times their column's weight [WORDS], then every row of unit length."""
        values = self.values * weights[self.columns]
        norms = np.sqrt(_sums(values**2, self.starts))
        return HashedWords(
            self.starts, self.columns, values / np.repeat(np.maximum(norms, 1e-12), np.diff(self.starts))
        )

    def weighed_times(self, rarity: FloatArray, weights: FloatArray) -> FloatArray:
        """`weighed(rarity)` times weights [WORDS, outputs], [n, outputs]."""
        # `take`, because indexing gathers rows several times slower.
        values, entries = self.values * rarity.take(self.columns), weights.take(self.columns, axis=0)
        moved: FloatArray
        squares: FloatArray
        if len(self.starts) == 2:
            moved, squares = (values @ entries)[None], np.array([values @ values])
        else:
            moved, squares = _sums(values[:, None] * entries, self.starts), _sums(values**2, self.starts)
        moved /= np.maximum(np.sqrt(squares), 1e-12)[:, None]
        return moved


def hashed_words(texts: Sequence[str]) -> HashedWords:
    """Words, signs and neighbouring pairs of every text by column; values 1 + log count, as for tf-idf."""
    if len(texts) <= FEW:
        return _word_by_word(texts)
    parts = [_all_at_once(texts[at : at + CHUNK]) for at in range(0, len(texts), CHUNK)]
    if len(parts) == 1:
        return parts[0]
    sizes = [np.diff(part.starts) for part in parts]
    return HashedWords(
        np.cumsum(np.concatenate([[0], *sizes])),
        np.concatenate([part.columns for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def surface(texts: Sequence[str]) -> FloatArray:
    """Length, digits, lines, options and the like, [n, 9]; roughly between 0 and 3."""
    rows = [_surface(text) for text in texts]
    return np.array(rows, dtype=np.float64).reshape(len(texts), 9)


def _word_by_word(texts: Sequence[str]) -> HashedWords:
    """Hashed words of a few texts: a table of words that were met before is faster than arrays of bytes."""
    starts, columns, counts = [0], [], []
    table, pair, mix = _HASHES, int(PAIR), int(MIX)
    for text in texts:
        hashes = [table[word] for word in _PIECE.findall(_read(text).lower())]
        found = [first * pair + second for first, second in pairwise(hashes)]
        of_text: dict[int, int] = {}
        for number in hashes + found:
            column = (number * mix & MASK) >> SHIFT
            of_text[column] = of_text.get(column, 0) + 1
        columns += sorted(of_text)
        counts += [of_text[column] for column in sorted(of_text)]
        starts.append(len(columns))
    values = np.array(counts, dtype=np.float64)
    if sum(counts) != len(counts):
        values = 1.0 + np.log(values)
    return HashedWords(np.array(starts), np.array(columns, dtype=np.int64), values)


def _all_at_once(texts: Sequence[str]) -> HashedWords:
    """The same for many texts, without a loop over their words."""
    hashes, sizes = _rolling(texts)
    rows = np.repeat(np.arange(len(texts)), sizes)
    paired = rows[1:] == rows[:-1]
    mixed = np.concatenate((hashes, (hashes[:-1] * PAIR + hashes[1:])[paired])) * MIX >> np.uint64(SHIFT)
    keys = np.concatenate((rows, rows[1:][paired])) * WORDS + mixed.view(np.int64)
    keys.sort()
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    counts = np.diff(firsts, append=len(keys))
    starts = np.searchsorted(keys[firsts], np.arange(len(texts) + 1) * WORDS)
    return HashedWords(starts, keys[firsts] % WORDS, 1.0 + np.log(counts))


def _rolling(texts: Sequence[str]) -> tuple[IntArray, IntArray]:
    """(hash of each word, words of each text)."""
    parts = [_read(text) for text in texts]
    starts = np.cumsum([0, *(len(part) + 1 for part in parts)])
    codes = np.frombuffer(b" " + b" ".join(parts), dtype=np.uint8)  # a space before each text
    places = np.append(_PLACE[codes], np.uint8(_BETWEEN))
    sign, inside = places == _SIGN, places == _INSIDE
    begins = np.flatnonzero(sign[1:] | (inside[1:] & ~inside[:-1])) + 1
    ends = np.flatnonzero(sign[:-1] | (inside[:-1] & ~inside[1:])) + 1
    powers, inverse = _powers(1 << len(codes).bit_length())
    along = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum(_LOWER[codes] * powers[: len(codes)], out=along[1:])
    sizes = np.diff(np.searchsorted(begins, starts))
    return (along[ends] - along[begins]) * inverse[begins], sizes


@lru_cache(maxsize=4)
def _powers(size: int) -> tuple[IntArray, IntArray]:
    """BASE⁰, BASE¹, … and the inverse of each, modulo 2⁶⁴."""
    both = []
    for base in (int(BASE), pow(int(BASE), -1, 1 << 64)):
        steps = np.full(size, np.uint64(base))
        steps[0] = 1
        both.append(np.cumprod(steps))
    return both[0], both[1]


def _surface(text: str) -> tuple[float, ...]:
    """The surface of one text; counts are those of the characters that are read."""
    codes, size = _read(text), min(len(text), READ_CHARACTERS)
    kinds, some = codes.translate(_KIND), max(size, 1)
    lines, uppers, foreign = kinds.count(b"\n"), kinds.count(b"u"), kinds.count(b"f")
    if foreign:
        foreign = size - (len(kinds) - foreign)  # characters, not bytes
    return (
        log1p(len(text)) / 3,
        log1p(kinds.count(b"d")) / 2,
        log1p(lines) / 2,
        log1p(len(_OPTION.findall(codes)) if lines else _OPTION.match(codes) is not None) / 2,
        (size - lines - kinds.count(b" ")) / max(len(kinds.split()), 1) / 5,
        3 * uppers / some,
        10 * kinds.count(b"s") / some,
        3 * foreign / some,
        log1p(kinds.count(b"?")),
    )


def _read(text: str) -> bytes:
    return text[:READ_CHARACTERS].encode("utf-8", "replace")


class _Hashes(dict[bytes, int]):
    """Word in lower case → its hash; safe to use from several threads."""

    def __missing__(self, word: bytes) -> int:
        if len(word) > LONGEST_WORD:
            hashes, _ = _rolling([word.decode()])
            return int(hashes[0])
        found, base = 0, int(BASE)
        for code in reversed(word):
            found = (found * base + code + 1) & MASK
        if len(self) >= MOST_WORDS:  # numbers and typing errors never end
            self.clear()
        self[word] = found
        return found


def _sums(entries: FloatArray, starts: IntArray) -> FloatArray:
    """Sums over each text's entries, [n, …]; 0 for a text without any."""
    total = np.zeros((len(starts) - 1, *entries.shape[1:]))
    filled = np.diff(starts) > 0
    if filled.any():
        total[filled] = np.add.reduceat(entries, starts[:-1][filled], axis=0)
    return total


def _table(*kinds: tuple[int, bytes], other: int) -> bytes:
    """For each byte its kind: that of the last of `kinds` which contains it."""
    table = bytearray([other]) * 256
    for kind, characters in kinds:
        for code in characters:
            table[code] = kind
    return bytes(table)


_DIGITS, _UPPERS, _SIGNS = b"0123456789", bytes(range(ord("A"), ord("Z") + 1)), b"{}[]()=<>+*/^\\$_"
_LOWERS, _HIGH = bytes(range(ord("a"), ord("z") + 1)), bytes(range(0x80, 0x100))
_SPACES = b"\t\n\v\f\r\x1c\x1d\x1e\x1f "
_KIND = _table(
    *zip(b"dusf? \n", (_DIGITS, _UPPERS, _SIGNS, _HIGH, b"?", _SPACES, b"\n"), strict=True), other=ord("x")
)
"""A letter for what `surface` counts a byte as."""
_OPTION = re.compile(rb"(?m)^[\t\v\f\r\x1c-\x1f ]*\(?[A-J][.):]")
"""A line that begins with an option's letter: `A.`, `(B)`, `C:`."""
_PIECE = re.compile(rb"[0-9a-z_\x80-\xff]+|[!-/:-@\[-^`{-~]")
"""A word or a sign of a text in lower case."""
_BETWEEN, _INSIDE, _SIGN = range(3)
_PLACE = np.frombuffer(
    _table(
        (_SIGN, bytes(range(ord("!"), 0x7F))),
        (_INSIDE, _DIGITS + _UPPERS + _LOWERS + b"_" + _HIGH),
        other=_BETWEEN,
    ),
    dtype=np.uint8,
)
"""Where a byte is: between words, inside a word, or a sign alone."""
_LOWER = np.frombuffer(bytes(range(256)).lower(), dtype=np.uint8).astype(np.uint64) + np.uint64(1)
"""A byte's digit in a hash."""
_HASHES = _Hashes()
