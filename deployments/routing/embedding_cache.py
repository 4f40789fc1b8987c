"""Embeddings of recent queries, bounded in bytes, for the thread that decides.

Keeps no text: a query may take ten times the bytes of its embedding, and its digest always takes 16.
"""

import hashlib
from collections import OrderedDict

from router.core import FloatArray

MAX_BYTES = 16 * 1024 * 1024
"""About 9,000 embeddings of 384 dimensions."""
DIGEST_BYTES = 16
ENTRY_BYTES = 300
"""Of Python's objects around an embedding: the digest, the array's head, the table's entry."""


class EmbeddingCache:
    """The embeddings that were used last.

    Args:
        max_bytes: what it takes at most; one embedding is kept even where it takes more.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._rows: OrderedDict[bytes, FloatArray] = OrderedDict()
        self.nbytes = 0
        """Bytes in use, about."""

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, text: str) -> FloatArray | None:
        """Return the embedding of a text, which counts as used now; `None` where it is not kept."""
        key = _digest(text)
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
        return row

    def put(self, text: str, row: FloatArray) -> None:
        """Keep the embedding of a text; the ones used longest ago make space for it."""
        key = _digest(text)
        self._discard(key)
        # A copy: the row of a batch would keep the whole batch.
        self._rows[key] = row.copy()
        self.nbytes += row.nbytes + ENTRY_BYTES
        while self.nbytes > self._max_bytes and len(self._rows) > 1:
            self._discard(next(iter(self._rows)))

    def _discard(self, key: bytes) -> None:
        row = self._rows.pop(key, None)
        if row is not None:
            self.nbytes -= row.nbytes + ENTRY_BYTES


def _digest(text: str) -> bytes:
    # Lone surrogates, which JSON can hold, are no UTF-8.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
