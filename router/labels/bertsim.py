"""BERTSim: token-level similarity of response and reference, the paper's soft quality.

Greedy matching of contextual embeddings and their F1, as BERTScore (Zhang et al., ICLR 2020,
arXiv 1904.09675) defines it, with the project's own encoder; no idf weights, no rescaling.
"""

from collections.abc import Sequence

import numpy as np

from router.core import FloatArray
from router.encoders import Encoder, load_encoder


class BertSim:
    """F1 of greedily matched token embeddings.

    Args:
        encoder: the encoder whose token states are compared; the default one when left out.
    """

    def __init__(self, encoder: Encoder | None = None) -> None:
        self._encoder = encoder

    def label(
        self, responses: Sequence[str], references: Sequence[str], queries: Sequence[str]
    ) -> FloatArray:
        encoder = self._encoder or load_encoder()
        distinct = list(dict.fromkeys((*responses, *references)))
        states = dict(zip(distinct, encoder.token_states(distinct), strict=True))
        return np.array(
            [
                similarity(states[response], states[reference])
                for response, reference in zip(responses, references, strict=True)
            ]
        )


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
