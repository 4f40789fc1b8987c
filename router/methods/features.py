"""Features of a query's text beside its embedding: hashed words and word pairs, and its surface.

No Python loop over words or characters; equal in every process (Python's `hash` is not).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log1p

import numpy as np

from router.core import BoolArray, FloatArray, IntArray

WORDS = 1 << 15
"""Columns of the hashed words (feature hashing: Weinberger et al., ICML 2009)."""
READ_CHARACTERS = 8_000
"""A longer text is read this far."""
CHUNK = 256
"""Texts whose bytes are held in memory together, several numbers for each."""
BASE = np.uint64(0x5851F42D4C957F2D)
"""Base of the rolling hash (Karp and Rabin 1987), modulo 2⁶⁴; odd, so that it has an inverse."""
MIX, PAIR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
"""Odd numbers that spread a hash over its upper bits, and distinguish a pair's first word from its second."""


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

    def times(self, weights: FloatArray) -> FloatArray:
        """The product with weights [WORDS, outputs], [n, outputs]."""
        return _sums(self.values[:, None] * weights[self.columns], self.starts)


def hashed_words(texts: Sequence[str]) -> HashedWords:
    """Words, signs and neighbouring pairs of every text by column; values 1 + log count, as for tf-idf."""
    parts = [_hashed_words(tuple(texts[at : at + CHUNK])) for at in range(0, len(texts), CHUNK)]
    if len(parts) == 1:
        return parts[0]
    sizes = [np.diff(part.starts) for part in parts]
    return HashedWords(
        np.cumsum(np.concatenate([[0], *sizes])),
        np.concatenate([np.empty(0, dtype=np.int64), *(part.columns for part in parts)]),
        np.concatenate([np.empty(0), *(part.values for part in parts)]),
    )


def surface(texts: Sequence[str]) -> FloatArray:
    """Length, digits, lines, options and the like, [n, 9]; roughly between 0 and 3."""
    rows = [_surface(text, text[:READ_CHARACTERS]) for text in texts]
    return np.array(rows, dtype=np.float64).reshape(len(texts), 9)


def _hashed_words(texts: tuple[str, ...]) -> HashedWords:
    batch = _Bytes.of(texts)
    begins, hashes = batch.words()
    sizes = np.diff(np.searchsorted(begins, batch.starts))
    rows = np.repeat(np.arange(len(texts)), sizes)
    pairs = rows[1:] == rows[:-1]
    paired = (hashes[:-1] * PAIR + hashes[1:])[pairs]
    keys = np.concatenate([rows, rows[1:][pairs]]) * WORDS
    keys += (np.concatenate([hashes, paired]) * MIX >> np.uint64(64 - 15)).astype(np.int64)
    keys, counts = np.unique(keys, return_counts=True)
    starts = np.searchsorted(keys, np.arange(len(texts) + 1) * WORDS)
    return HashedWords(starts, keys % WORDS, 1.0 + np.log(counts))


def _surface(whole: str, text: str) -> tuple[float, ...]:
    """The surface of one text; counts are those of the characters that are read."""
    codes, size = text.encode("utf-8", "replace"), len(text)
    some = max(size, 1)
    foreign = 0 if codes.isascii() else size - len(codes.translate(None, _HIGH))
    words = len(codes.translate(_BLANK).split())
    return (
        log1p(len(whole)) / 3,
        log1p(_count(codes, _DIGITS)) / 2,
        log1p(codes.count(b"\n")) / 2,
        log1p(len(_OPTION.findall(codes))) / 2,
        (size - _count(codes, _SPACES)) / max(words, 1) / 5,
        3 * _count(codes, _UPPERS) / some,
        10 * _count(codes, _SIGNS) / some,
        3 * foreign / some,
        log1p(codes.count(b"?")),
    )


def _count(codes: bytes, wanted: bytes) -> int:
    return len(codes) - len(codes.translate(None, wanted))


@dataclass(frozen=True, slots=True)
class _Bytes:
    """A batch's texts in UTF-8, one after the other, a space before each and one at the end."""

    codes: IntArray  # [bytes] uint8
    starts: IntArray  # [n + 1] position of each text's separator

    @classmethod
    def of(cls, texts: Sequence[str]) -> "_Bytes":
        parts = [text[:READ_CHARACTERS].encode("utf-8", "replace") for text in texts]
        starts = np.cumsum([0, *(len(part) + 1 for part in parts)])
        codes = np.frombuffer(b" " + b" ".join(parts) + b" ", dtype=np.uint8)
        return cls(codes[: starts[-1]], starts)

    def words(self) -> tuple[IntArray, IntArray]:
        """(where each word or sign begins, its hash as uint64)."""
        kinds = np.append(_KIND[self.codes], np.uint8(0))
        sign, inside = kinds == 2, kinds == 1
        begins = np.flatnonzero(sign[1:] | (inside[1:] & ~inside[:-1])) + 1
        ends = np.flatnonzero(sign[:-1] | (inside[:-1] & ~inside[1:])) + 1
        powers, inverse = _powers(1 << len(self.codes).bit_length())
        along = np.zeros(len(self.codes) + 1, dtype=np.uint64)
        np.cumsum(_LOWER[self.codes] * powers[: len(self.codes)], out=along[1:])
        return begins, (along[ends] - along[begins]) * inverse[begins]


@lru_cache(maxsize=4)
def _powers(size: int) -> tuple[IntArray, IntArray]:
    """BASE⁰, BASE¹, … and the inverse of each, modulo 2⁶⁴."""
    inverse = np.uint64(pow(int(BASE), -1, 1 << 64))
    both = []
    for base in (BASE, inverse):
        steps = np.full(size, base, dtype=np.uint64)
        steps[0] = 1
        both.append(np.cumprod(steps))
    return both[0], both[1]


def _sums(entries: FloatArray, starts: IntArray) -> FloatArray:
    """Sums over each text's entries, [n, …]; 0 for a text without any."""
    total = np.zeros((len(starts) - 1, *entries.shape[1:]))
    filled = np.diff(starts) > 0
    if filled.any():
        total[filled] = np.add.reduceat(entries, starts[:-1][filled], axis=0)
    return total


def _is(characters: bytes | range) -> BoolArray:
    """Whether a byte is one of these, [256]."""
    table = np.zeros(256, dtype=bool)
    table[list(characters)] = True
    return table


_DIGITS, _UPPERS, _SIGNS = b"0123456789", bytes(range(ord("A"), ord("Z") + 1)), b"{}[]()=<>+*/^\\$_"
_SPACES, _HIGH = b"\t\n\v\f\r\x1c\x1d\x1e\x1f ", bytes(range(0x80, 0x100))
_BLANK = bytes.maketrans(b"\x1c\x1d\x1e\x1f", b"    ")
"""Spaces that `bytes.split` does not know."""
_OPTION = re.compile(rb"(?m)^[\t\v\f\r\x1c-\x1f ]*\(?[A-J][.):]")
"""A line that begins with an option's letter: `A.`, `(B)`, `C:`."""
_SPACE, _UPPER = _is(_SPACES), _is(_UPPERS)
_WORD = _is(_DIGITS) | _UPPER | _is(range(ord("a"), ord("z") + 1)) | _is(b"_") | _is(_HIGH)
_KIND = np.where(_WORD, 1, np.where(_SPACE | _is(range(0x20)) | _is(b"\x7f"), 0, 2)).astype(np.uint8)
_LOWER = (np.arange(256) + 32 * _UPPER + 1).astype(np.uint64)
