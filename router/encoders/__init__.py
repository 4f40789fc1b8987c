"""Sentence encoders: texts in, unit vectors out. Finds the weights, checks them, picks a runtime.

The runtimes are imported when an encoder is loaded, never before: a static encoder needs numpy only, a
transformer OpenVINO or, on a GPU, torch.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from router.core import FloatArray
from router.encoders.source import DEFAULT, STATIC, EncoderSource, EncoderSpec, find
from router.encoders.transformer import TransformerEncoder
from router.errors import EncoderError

__all__ = ["DEFAULT", "STATIC", "Encoder", "EncoderSpec", "load_encoder", "load_transformer"]


class Encoder(Protocol):
    """Texts to unit vectors. Safe to call from several threads."""

    @property
    def spec(self) -> EncoderSpec: ...

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embeddings of `texts`: [n, dimension] float32, rows of unit length, in their order.

        The row of a text without any known token may be all zeros.
        """
        ...


def load_encoder(name: str | EncoderSpec = "default", *, device: str = "auto", threads: int = 1) -> Encoder:
    """Load an encoder by name, or the one that a policy recorded.

    Args:
        name: `default`, `static`, a folder, a hub id, or the encoder that a policy recorded.
        device: `auto` takes a GPU where torch sees one, else the CPU; `cpu` and `cuda` take that one.
            A static encoder always runs on the CPU.
        threads: processor threads of a transformer on the CPU.

    Raises:
        EncoderError: it is not found, its weights are not the named ones, or no runtime is installed.
    """
    if device not in {"auto", "cpu", "cuda"}:
        raise EncoderError(f"device must be auto, cpu or cuda, found {device!r}")
    source = find(name)
    return RUNTIMES[source.spec.kind](source, device, threads)


def load_transformer(
    name: str | EncoderSpec = "default", *, device: str = "auto", threads: int = 1
) -> TransformerEncoder:
    """Load an encoder that has contextual token states; arguments and errors as of `load_encoder`."""
    encoder = load_encoder(name, device=device, threads=threads)
    if not isinstance(encoder, TransformerEncoder):
        raise EncoderError(f"encoder {encoder.spec.id!r} is static: a transformer is needed here")
    return encoder


def _static(source: EncoderSource, device: str, threads: int) -> Encoder:
    from router.encoders.static import StaticEncoder

    return StaticEncoder(source)


RUNTIMES: dict[str, Callable[[EncoderSource, str, int], Encoder]] = {
    "static": _static,
    "transformer": TransformerEncoder.load,
}
"""Kind of an encoder → what loads it; `source.KINDS` has the kind of each architecture."""
