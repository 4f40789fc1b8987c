"""Token ids of plain ASCII text, word by word from a table of words that were met before.

The tokenizer of BERT models (lower case, words and signs apart, then word pieces) gives a word the same ids
in every text, so a look-up replaces it: a seventh of its time. Any other text, and any other tokenizer, is
left to `tokenizers`.
"""

import json
import re
from typing import Self

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
        tokenizer: encodes the words that are new.
        added: tokens that the tokenizer finds in a text before it splits it, such as [SEP].
    """

    def __init__(self, tokenizer: Tokenizer, added: list[str]) -> None:
        self._words = _Words(tokenizer)
        self._added = added

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self | None:
        """The table of a tokenizer; `None` where words depend on their text."""
        stored = json.loads(tokenizer.to_str())
        kinds = {part: (stored.get(part) or {}).get("type") for part in PLAIN}
        normalizer = stored.get("normalizer") or {}
        if kinds != PLAIN or not normalizer.get("lowercase") or not normalizer.get("clean_text"):
            return None
        return cls(tokenizer, [token["content"] for token in stored.get("added_tokens", [])])

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
    """Word → ids; a word that is missing is encoded, and kept where it is short."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, word: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(word, add_special_tokens=False).ids
        if len(word) <= LONGEST_WORD:
            if len(self) >= MOST_WORDS:  # numbers and typing errors never end
                self.clear()
            self[word] = ids
        return ids
