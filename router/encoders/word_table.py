"""Token ids of plain ASCII text, word by word from a table of words that were met before.

The tokenizer of BERT models (lower case, words and signs apart, then word pieces) gives a word the same ids
in every text, so a look-up replaces it: a seventh of its time. Any other text, and any other tokenizer, is
left to `tokenizers`.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Self

from tokenizers import Tokenizer

MOST_WORDS, LONGEST_WORD = 65_536, 32
"""Words that the table holds at most, and their characters: 10 MB."""
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Characters that the tokenizer removes, so that their neighbours become one word."""
WORD = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
PLAIN = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}


class WordTable:
    """Token ids of words; safe to use from several threads.

    Args:
        words: the ids of each word.
        added: tokens that the tokenizer finds in a text before it splits it, such as [SEP].
    """

    def __init__(self, words: Mapping[str, list[int]], added: list[str]) -> None:
        self._words = words
        self._added = added

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self | None:
        """The table of a tokenizer; `None` where words depend on their text."""
        stored = json.loads(tokenizer.to_str())
        kinds = {part: (stored.get(part) or {}).get("type") for part in PLAIN}
        normalizer = stored.get("normalizer") or {}
        if kinds != PLAIN or not normalizer.get("lowercase") or not normalizer.get("clean_text"):
            return None
        model = stored["model"]
        if model["unk_token"] not in model["vocab"] or model["max_input_chars_per_word"] < LONGEST_WORD:
            return None
        added = [token["content"] for token in stored.get("added_tokens", [])]
        return cls(_Words(tokenizer, model), added)

    def ids(self, text: str) -> list[int] | None:
        """The ids of a text, without special tokens; `None` where it is not plain."""
        if not text.isascii() or CONTROL.search(text):
            return None
        lower = text.lower()
        if any(token in text or token in lower for token in self._added):
            return None
        words, found = self._words, []
        for word in WORD.findall(lower):
            found += words[word]
        return found


class _Words(dict[str, list[int]]):
    """Word → ids; a word that is missing is cut into pieces, and kept where it is short."""

    def __init__(self, tokenizer: Tokenizer, model: Mapping[str, Any]) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._pieces: dict[str, int] = model["vocab"]
        self._inside: str = model["continuing_subword_prefix"]
        self._unknown = [self._pieces[model["unk_token"]]]

    def __missing__(self, word: str) -> list[int]:
        if len(word) > LONGEST_WORD:
            found: list[int] = self._tokenizer.encode(word, add_special_tokens=False).ids
            return found
        if len(self) >= MOST_WORDS:  # numbers and typing errors never end
            self.clear()
        ids = self[word] = self._cut(word)
        return ids

    def _cut(self, word: str) -> list[int]:
        """The longest pieces from the left (Wu et al. 2016), as the tokenizer cuts, without its call."""
        ids: list[int] = []
        begin, prefix = 0, ""
        while begin < len(word):
            for end in range(len(word), begin, -1):
                piece = self._pieces.get(prefix + word[begin:end])
                if piece is not None:
                    ids.append(piece)
                    begin, prefix = end, self._inside
                    break
            else:
                return self._unknown
        return ids
