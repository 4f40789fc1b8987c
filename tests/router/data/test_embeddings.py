"""Each text is encoded once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from router.core import FloatArray
from router.data.embeddings import CHUNK, cache_folder, encode_cached
from router.encoders import EncoderSpec


class Counting:
    """An encoder that counts its texts."""

    def __init__(self, sha256: str = "a" * 64) -> None:
        self.spec = EncoderSpec("counting", sha256, 4, 16)
        self.asked = 0

    def encode(self, texts: Sequence[str]) -> FloatArray:
        self.asked += len(texts)
        return np.array([[len(text), 1, 2, 3] for text in texts], dtype=np.float32)


def test_the_second_time_comes_from_disk(tmp_path: Path) -> None:
    encoder, texts, told = Counting(), [f"text {n}" for n in range(CHUNK + 3)], []
    first = encode_cached(encoder, texts, folder=tmp_path)
    second = encode_cached(encoder, texts, folder=tmp_path, progress=told.append)

    np.testing.assert_array_equal(first, second)
    assert encoder.asked == len(texts)
    assert told == [len(texts)]


def test_another_encoder_or_text_has_its_own_entry(tmp_path: Path) -> None:
    encoder = Counting()
    encode_cached(encoder, ["a"], folder=tmp_path)
    encode_cached(encoder, ["b"], folder=tmp_path)
    other = Counting("b" * 64)
    encode_cached(other, ["a"], folder=tmp_path)

    assert (encoder.asked, other.asked) == (2, 1)


def test_a_damaged_entry_is_made_again(tmp_path: Path) -> None:
    encoder = Counting()
    encode_cached(encoder, ["a"], folder=tmp_path)
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(b"not safetensors")

    assert encode_cached(encoder, ["a"], folder=tmp_path).shape == (1, 4)
    assert encoder.asked == 2


def test_no_texts_have_no_embeddings(tmp_path: Path) -> None:
    assert encode_cached(Counting(), [], folder=tmp_path).shape == (0, 4)


def test_the_cache_is_in_the_configured_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TO_ROUTER_CACHE", str(tmp_path))

    assert cache_folder() == tmp_path / "to-router" / "embeddings"
