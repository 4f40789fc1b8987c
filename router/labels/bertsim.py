"""BERTSim: token-level similarity of response and reference, the paper's soft quality.

Greedy matching of contextual embeddings and their F1, as BERTScore (Zhang et al., ICLR 2020,
arXiv 1904.09675) defines it, with the project's own encoder; no idf weights, no rescaling.
"""

from collections.abc import Sequence

import numpy as np

from router.core import FloatArray
from router.encoders import load_transformer
from router.encoders.transformer import TransformerEncoder

CHUNK = 256
"""Rows whose token states are held in memory together: 384 KiB for a text of 256 tokens."""


class BertSim:
    """F1 of greedily matched token embeddings.

    Args:
        encoder: the encoder whose token states are compared; the default one when left out.
    """

    def __init__(self, encoder: TransformerEncoder | None = None) -> None:
        self._encoder = encoder

    def label(
        self, responses: Sequence[str], references: Sequence[str], queries: Sequence[str]
    ) -> FloatArray:
        encoder = self._encoder or load_transformer()
        pairs = list(zip(responses, references, strict=True))
        found: list[float] = []
        for at in range(0, len(pairs), CHUNK):
            chunk = pairs[at : at + CHUNK]
            distinct = list(dict.fromkeys(text for pair in chunk for text in pair))
            states = dict(zip(distinct, encoder.token_states(distinct), strict=True))
            found += [similarity(states[response], states[reference]) for response, reference in chunk]
        return np.array(found)


def similarity(response: FloatArray, reference: FloatArray) -> float:
    """BERTScore's F1 of two texts' unit token states, [tokens, dimension] each; in [0, 1].

    The encoder's first and last token ([CLS], [SEP]) frame every text alike and are left out.
    """
    a, b = response[1:-1], reference[1:-1]
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    near = a @ b.T
    precision, recall = float(near.max(axis=1).mean()), float(near.max(axis=0).mean())
    if precision + recall <= 0:
        return 0.0
    return float(np.clip(2 * precision * recall / (precision + recall), 0.0, 1.0))
