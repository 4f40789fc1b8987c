"""Static token vectors: a text's embedding is the weighted mean of a vector for each of its tokens.

Reads the folders of model2vec's StaticModel (`embeddings`, and where the file has them `weights` for each
token and the `mapping` from tokens to rows), and gives that library's vectors, always of unit length.
No network and no padding: a hundredth of a transformer's time.
"""

from collections.abc import Sequence

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from router.core import FloatArray, IntArray
from router.encoders.source import EncoderSource
from router.encoders.tokens import Tokeniser, unknown_token
from router.errors import EncoderError


class StaticEncoder:
    """Mean of token vectors. Safe to call from several threads: nothing changes after the constructor."""

    def __init__(self, source: EncoderSource) -> None:
        self.spec = source.spec
        file = source.folder / "tokenizer.json"
        tokenizer = Tokenizer.from_file(str(file))
        vocabulary = tokenizer.get_vocab()
        # As model2vec cuts texts, so that a long one costs no more than its window.
        characters = source.spec.max_tokens * int(np.median([len(token) for token in vocabulary]))
        self._tokeniser = Tokeniser(file, source.spec.max_tokens, special_tokens=False, characters=characters)
        count = max(vocabulary.values()) + 1
        self._vectors, self._rows, self._weights = _arrays(source, count)
        if (unknown := unknown_token(tokenizer)) is not None:
            self._weights[unknown] = 0.0

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embeddings of `texts`: [n, dimension] float32, in their order.

        Rows have unit length, except those of texts without any known token: they are zeros.
        """
        out = np.zeros((len(texts), self.spec.dimension), dtype=np.float32)
        for row, tokens in enumerate(self._tokeniser.ids(texts)):
            # A product for each text is faster than sums over the whole batch, and the same in any company.
            at = np.array(tokens, dtype=np.intp)
            vectors = self._vectors.take(self._rows.take(at), axis=0)
            np.matmul(self._weights.take(at), vectors, out=out[row])
        norms = np.sqrt(np.einsum("nd,nd->n", out, out))
        out /= np.maximum(norms, 1e-12)[:, None]
        return out


def _arrays(source: EncoderSource, tokens: int) -> tuple[FloatArray, IntArray, FloatArray]:
    """(vectors [rows, dimension], each token's row [tokens], each token's weight [tokens])."""
    try:
        arrays = load_file(str(source.folder / "model.safetensors"))
    except SafetensorError as error:
        raise EncoderError(f"the encoder's weights in {source.folder} cannot be read: {error}") from error
    vectors = arrays["embeddings"]
    rows = arrays.get("mapping", np.arange(tokens)).astype(np.int32)
    weights = arrays.get("weights", np.ones(tokens)).astype(np.float32)
    if len(rows) < tokens or len(weights) < tokens or rows.min() < 0 or rows.max() >= len(vectors):
        raise EncoderError(
            f"the encoder in {source.folder} has {tokens} tokens, but {len(vectors)} vectors, "
            f"{len(weights)} weights and {len(rows)} rows"
        )
    if not (np.isfinite(vectors).all() and np.isfinite(weights).all()):
        raise EncoderError(f"the encoder in {source.folder} holds a value that is not finite")
    return vectors.astype(np.float32), rows, weights
