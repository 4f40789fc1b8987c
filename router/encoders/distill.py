"""Make the static encoder that comes with the library from the default transformer.

    python -m router.encoders.distill FOLDER

Each token of the vocabulary is encoded alone, the vectors are reduced to their principal components, and
common tokens weigh less: a / (a + p) of smooth inverse frequency (Arora et al., ICLR 2017), with p by Zipf's
law from the order of the vocabulary, as model2vec distils. Needs torch, for full precision; no data and no
random numbers, so that the same weights give the same file up to the last bits of the machine's arithmetic.
"""

import argparse
import json
import os
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from tokenizers import Tokenizer

from router.core import FloatArray, IntArray
from router.encoders.source import DEFAULT, STATIC, find
from router.encoders.tokens import TokenBatch
from router.encoders.torch_bert import TorchBert
from router.files import new_folder_atomically

SMOOTHING = 1e-3
"""a of a / (a + p)."""
BATCH = 512
LEFT_OUT = re.compile(r"\[(unused\d+|PAD|UNK|CLS|SEP|MASK)\]")
"""Tokens that no text has."""


def main() -> None:
    """Write the folder of the static encoder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder to make")
    options = parser.parse_args()
    source = find(DEFAULT)
    tokenizer = Tokenizer.from_file(str(source.folder / "tokenizer.json"))
    states = alone(TorchBert(source, device="cpu", threads=os.cpu_count() or 1), tokenizer)
    kept = np.array([i for i, token in enumerate(_tokens(tokenizer)) if not LEFT_OUT.fullmatch(token)])
    write(options.out, tokenizer, kept, components(states[kept], STATIC.dimension), zipf(len(states))[kept])


def alone(model: TorchBert, tokenizer: Tokenizer) -> FloatArray:
    """The transformer's vector of each token, framed as a text of its own, [tokens, dimension]."""
    first, last = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    count = tokenizer.get_vocab_size()
    ids = np.stack([np.full(count, first), np.arange(count), np.full(count, last)], axis=1)
    parts = []
    for at in range(0, count, BATCH):
        part = ids[at : at + BATCH]
        rows = np.arange(len(part))
        parts.append(model.forward(TokenBatch(rows, part, np.ones_like(part), np.full(len(part), 3)))[1])
    return np.concatenate(parts)


def components(vectors: FloatArray, count: int) -> FloatArray:
    """The first principal components of centred vectors, [n, count]."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :count]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(count)])  # an eigenvector's sign is arbitrary
    reduced: FloatArray = centred @ axes
    return reduced


def zipf(count: int) -> FloatArray:
    """The weight of each token of a vocabulary that is ordered by frequency, [count]."""
    inverse_rank = 1.0 / np.arange(2, count + 2)
    weights: FloatArray = SMOOTHING / (SMOOTHING + inverse_rank / inverse_rank.sum())
    return weights


def write(
    folder: Path, tokenizer: Tokenizer, kept: IntArray, vectors: FloatArray, weights: FloatArray
) -> None:
    """Write a StaticModel folder with whole numbers of 8 bits; each row's scale goes into its weight.

    Args:
        folder: a new folder.
        tokenizer: of the transformer.
        kept: [rows] the tokens that have a vector.
        vectors: [rows, dimension] of those.
        weights: [rows] of those.
    """
    count = tokenizer.get_vocab_size()
    largest = np.maximum(np.abs(vectors).max(axis=1), 1e-12)
    mapping, scaled = np.zeros(count, dtype=np.int32), np.zeros(count)
    mapping[kept], scaled[kept] = np.arange(len(kept)), weights * largest
    arrays = {
        "embeddings": np.round(vectors / largest[:, None] * 127).astype(np.int8),
        "mapping": mapping,
        "weights": (scaled / scaled.max()).astype(np.float16),
    }
    config = {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        "tokenizer_name": DEFAULT.id,
        "hidden_dim": vectors.shape[1],
        "max_length": STATIC.max_tokens,
        "normalize": True,
        "embedding_dtype": "int8",
        "vocabulary_quantization": len(kept),
    }
    with new_folder_atomically(folder) as making:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        (making / "tokenizer.json").write_text(tokenizer.to_str() + "\n", encoding="utf-8")
        (making / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (making / "model.safetensors").write_bytes(save(arrays))


def _tokens(tokenizer: Tokenizer) -> list[str]:
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=lambda token: vocabulary[token])


if __name__ == "__main__":
    main()
