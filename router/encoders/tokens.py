"""Texts to token ids; for transformers padded, in batches of similar length."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from router.core import IntArray
from router.encoders.word_table import WordTable

CHARACTERS_PER_TOKEN = 64
"""No token of a word-piece vocabulary is longer: what lies beyond the window times this is never read."""
PADDED_TO = 8
"""Batches are as long as a multiple of this: a runtime prepares every new shape again."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Some of the texts, padded to one length."""

    rows: IntArray  # [n], positions of these texts in the input
    ids: IntArray  # [n, tokens] int64
    mask: IntArray  # [n, tokens] int64, 0 for padding
    lengths: IntArray  # [n]


class Tokeniser:
    """A `tokenizers` file with the window of an encoder.

    Args:
        file: tokenizer.json.
        max_tokens: a longer text is cut.
        special_tokens: whether a text is framed by those that the file names, such as [CLS] and [SEP].
        characters: what lies beyond this many is never read.
    """

    def __init__(
        self, file: Path, max_tokens: int, *, special_tokens: bool = True, characters: int | None = None
    ) -> None:
        self._max_tokens = max_tokens
        self._special_tokens = special_tokens
        self._characters = max_tokens * CHARACTERS_PER_TOKEN if characters is None else characters
        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.enable_truncation(max_length=max_tokens)
        self._tokenizer.no_padding()
        self._table = None if special_tokens else WordTable.of(self._tokenizer)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of every text, in their order."""
        texts = [text[: self._characters] for text in texts]
        if self._table is None:
            return self._encoded(texts)
        found = [self._table.ids(text) for text in texts]
        others = iter(self._encoded([text for text, ids in zip(texts, found, strict=True) if ids is None]))
        return [next(others) if ids is None else ids[: self._max_tokens] for ids in found]

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        # Lone surrogates come in through JSON escapes; the tokenizer takes only valid Unicode.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        encoded = self._tokenizer.encode_batch_fast(clean, add_special_tokens=self._special_tokens)
        return [encoding.ids for encoding in encoded]

    def batches(self, texts: Sequence[str], size: int) -> Iterator[TokenBatch]:
        """Every text once, in batches of at most `size`, shortest first."""
        encoded = self.ids(texts)
        order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            shape = (len(rows), self._padded(max(len(encoded[row]) for row in rows)))
            ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
            for position, row in enumerate(rows):
                ids[position, : len(encoded[row])] = encoded[row]
                mask[position, : len(encoded[row])] = 1
            yield TokenBatch(np.asarray(rows), ids, mask, mask.sum(axis=1))

    def _padded(self, length: int) -> int:
        return min(self._max_tokens, -(-length // PADDED_TO) * PADDED_TO)


def unknown_token(tokenizer: Tokenizer) -> int | None:
    """The id that stands for what the vocabulary lacks; `None` where there is none."""
    model = tokenizer.model
    if hasattr(model, "unk_token"):  # all but Unigram
        return None if model.unk_token is None else tokenizer.token_to_id(model.unk_token)
    found = json.loads(tokenizer.to_str())["model"].get("unk_id")
    return None if found is None else int(found)
