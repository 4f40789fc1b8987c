"""Embeddings of a data set, cached on disk by encoder and texts."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from router.core import FloatArray
from router.encoders import EncoderSpec
from router.files import replaced_atomically


class Encodes(Protocol):
    """The part of an encoder that is used here."""

    @property
    def spec(self) -> EncoderSpec: ...

    def encode(self, texts: Sequence[str]) -> FloatArray: ...


CHUNK = 512
"""Texts between two reports of progress."""


def cache_folder() -> Path:
    """Where embeddings are kept: `TO_ROUTER_CACHE`, else the user's cache folder."""
    base = os.environ.get("TO_ROUTER_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    )
    return Path(base) / "to-router" / "embeddings"


def encode_cached(
    encoder: Encodes,
    texts: Sequence[str],
    *,
    folder: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> FloatArray:
    """Embeddings [n, dimension] of `texts`, from disk where the same texts were encoded before."""
    folder = cache_folder() if folder is None else folder
    digest = hashlib.sha256(f"{encoder.spec.sha256} {encoder.spec.max_tokens}".encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    file = folder / f"{digest.hexdigest()[:32]}.safetensors"
    stored = _stored(file)
    if stored is not None and stored.shape == (len(texts), encoder.spec.dimension):
        progress(len(texts))
        return stored
    parts = []
    for start in range(0, len(texts), CHUNK):
        parts.append(encoder.encode(texts[start : start + CHUNK]))
        progress(len(parts[-1]))
    found = np.concatenate(parts) if parts else np.empty((0, encoder.spec.dimension), dtype=np.float32)
    with replaced_atomically(file) as temporary:
        save_file({"embeddings": found}, str(temporary))
    return found


def _stored(file: Path) -> FloatArray | None:
    """The embeddings of an entry; `None` where it is missing or damaged."""
    try:
        found: FloatArray | None = load_file(str(file)).get("embeddings")
    except (FileNotFoundError, SafetensorError):
        return None
    return found
