"""Likeness of meaning, in memory that does not grow with the file."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from router.core import FloatArray
from router.labels.bertsim import CHUNK, BertSim, similarity
from tests.router.data_sets import embeddings


class Encoder:
    """A vector for each word; remembers the most texts that it was given at once."""

    most = 0

    def token_states(self, texts: Sequence[str]) -> list[FloatArray]:
        self.most = max(self.most, len(texts))
        return [embeddings(("[", *text.split(), "]")) for text in texts]


def test_a_long_file_is_labelled_in_chunks_as_row_by_row() -> None:
    encoder: Any = Encoder()
    responses = [f"it is {n} of {n % 7}" for n in range(2 * CHUNK + 3)]
    references = [f"{n % 5} it is" for n in range(2 * CHUNK + 3)]
    found = BertSim(encoder).label(responses, references, [""] * len(responses))

    assert encoder.most <= 2 * CHUNK
    states = encoder.token_states
    expected = [
        similarity(*states([response, reference]))
        for response, reference in zip(responses, references, strict=True)
    ]
    np.testing.assert_allclose(found, expected)
