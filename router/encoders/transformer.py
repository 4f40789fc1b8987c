"""A transformer as a sentence encoder, on the runtime that fits the machine."""

import importlib.util
from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np

from router.core import FloatArray
from router.encoders.source import EncoderSource, EncoderSpec
from router.encoders.tokens import TokenBatch, Tokeniser
from router.errors import EncoderError

SUB_BATCH = 32
"""Texts of similar length that are encoded together: little padding, and a matrix that fits the caches."""


class Runtime(Protocol):
    """A BERT on some device."""

    def forward(self, batch: TokenBatch) -> tuple[FloatArray, FloatArray]:
        """(token states [n, tokens, dimension], mean over tokens [n, dimension]), float32."""
        ...


class TransformerEncoder:
    """The mean of a text's contextual token states. Safe to call from several threads."""

    def __init__(self, spec: EncoderSpec, tokeniser: Tokeniser, runtime: Runtime) -> None:
        self.spec = spec
        self._tokeniser = tokeniser
        self._runtime = runtime

    @classmethod
    def load(cls, source: EncoderSource, device: str, threads: int) -> Self:
        """Load a transformer's files; arguments as of `load_encoder`."""
        tokeniser = Tokeniser(source.folder / "tokenizer.json", source.spec.max_tokens)
        return cls(source.spec, tokeniser, _runtime(source, device, threads))

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embeddings of `texts`: [n, dimension] float32, rows of unit length, in their order."""
        out = np.empty((len(texts), self.spec.dimension), dtype=np.float32)
        for batch in self._tokeniser.batches(texts, SUB_BATCH):
            _, mean = self._runtime.forward(batch)
            norm = np.linalg.norm(mean, axis=1, keepdims=True)
            out[batch.rows] = mean / np.maximum(norm, 1e-12)
        return out

    def token_states(self, texts: Sequence[str]) -> list[FloatArray]:
        """Contextual embeddings of each text's tokens: a list of [tokens, dimension], unit rows."""
        out: list[FloatArray] = [np.empty((0, self.spec.dimension), dtype=np.float32)] * len(texts)
        for batch in self._tokeniser.batches(texts, SUB_BATCH):
            states, _ = self._runtime.forward(batch)
            states = states / np.maximum(np.linalg.norm(states, axis=2, keepdims=True), 1e-12)
            for position, row in enumerate(batch.rows):
                out[int(row)] = states[position, : int(batch.lengths[position])]
        return out


def _runtime(source: EncoderSource, device: str, threads: int) -> Runtime:
    has_torch = importlib.util.find_spec("torch") is not None
    if device == "cuda" or (device == "auto" and has_torch and _sees_gpu()):
        if not has_torch:
            raise EncoderError("device cuda needs torch: install to-router[train] or [gpu]")
        from router.encoders.torch_bert import TorchBert

        return TorchBert(source, device="cuda", threads=threads)
    if importlib.util.find_spec("openvino") is not None:
        from router.encoders.openvino_bert import OpenVinoBert

        return OpenVinoBert(source, threads=threads)
    if has_torch:
        from router.encoders.torch_bert import TorchBert

        return TorchBert(source, device="cpu", threads=threads)
    raise EncoderError("no runtime for the encoder: install openvino (CPU) or torch")


def _sees_gpu() -> bool:
    """Whether this machine has an NVIDIA device; torch is imported only where a device file exists."""
    from pathlib import Path

    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    import torch

    return bool(torch.cuda.is_available())
