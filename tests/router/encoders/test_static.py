"""A static encoder is model2vec's: same folders, same vectors; and ours comes with the library."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model2vec import StaticModel
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece
from tokenizers.pre_tokenizers import Whitespace

from router.encoders import STATIC, Encoder, load_encoder, load_transformer
from router.encoders.source import find
from router.errors import EncoderError

WORDS = ("[UNK]", "a", "what", "is", "of", "capital", "france", "##s")
TEXTS = ("what is a capital of france", "capital", "a zebra is a zebra", "what what what", "zebra", "")
MOST_BYTES = 8_000_000


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("static")


def words(model: Any) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


VOCABULARY = {word: number for number, word in enumerate(WORDS)}
TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "words": lambda: words(WordLevel(VOCABULARY, unk_token="[UNK]")),
    "pieces": lambda: words(WordPiece(VOCABULARY, unk_token="[UNK]")),
    "pairs": lambda: words(BPE({letter: n for n, letter in enumerate("acfhinlptswor")}, [])),
    "unigram": lambda: words(Unigram([(word, -1.0 - n) for n, word in enumerate(WORDS)], unk_id=0)),
}
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(len(WORDS), 6)).astype(np.float32)
WEIGHTS = RNG.uniform(0.1, 1.0, len(WORDS)).astype(np.float32)
ARRAYS = {
    "vectors": {"embeddings": VECTORS},
    "half precision": {"embeddings": VECTORS.astype(np.float16)},
    "weights": {"embeddings": VECTORS, "weights": WEIGHTS},
    "fewer rows": {
        "embeddings": (30 * VECTORS[:3]).astype(np.int8),
        "weights": WEIGHTS.astype(np.float16),
        "mapping": np.array([0, 1, 2, 0, 1, 2, 0, 1], dtype=np.int32),
    },
}


def folder_of(folder: Path, tokenizer: Tokenizer, arrays: dict[str, Any], **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(arrays, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", **config}))
    return folder


def test_the_shipped_one_is_the_named_one(encoder: Encoder) -> None:
    file = find("static").folder / "model.safetensors"

    assert encoder.spec == STATIC
    assert load_encoder(STATIC).spec == STATIC
    assert file.stat().st_size <= MOST_BYTES


@pytest.mark.parametrize("arrays", ARRAYS)
def test_vectors_are_those_of_model2vec(tmp_path: Path, arrays: str) -> None:
    folder = folder_of(tmp_path, TOKENIZERS["words"](), ARRAYS[arrays], normalize=True)

    found = load_encoder(str(folder)).encode(TEXTS)

    expected = StaticModel.from_pretrained(folder).encode(TEXTS)
    np.testing.assert_allclose(
        found, expected, atol=1e-5 if ARRAYS[arrays]["embeddings"].dtype == np.float32 else 2e-3
    )


@pytest.mark.parametrize("tokenizer", [name for name in TOKENIZERS if name != "pairs"])
def test_unknown_words_count_as_in_model2vec(tmp_path: Path, tokenizer: str) -> None:
    folder = folder_of(tmp_path, TOKENIZERS[tokenizer](), ARRAYS["weights"], normalize=True, max_length=4)

    found = load_encoder(str(folder)).encode(TEXTS)

    np.testing.assert_allclose(found, StaticModel.from_pretrained(folder).encode(TEXTS), atol=1e-5)


def test_the_shipped_vectors_are_those_of_model2vec(encoder: Encoder) -> None:
    texts = [
        "What is 17 + 25?",
        "Wie heißt die Hauptstadt von Österreich?",
        "什么是机器学习？",
        "word " * 900,
    ]
    expected = StaticModel.from_pretrained(find("static").folder).encode(texts)

    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-3)


def test_near_vectors_are_near_meanings(encoder: Encoder) -> None:
    a, b, c = encoder.encode(
        ["What is the capital of France?", "Name the French capital city.", "How do I boil an egg?"]
    )

    assert a @ b > a @ c + 0.3


def test_rows_have_unit_length_and_the_texts_order(encoder: Encoder) -> None:
    texts = ["one river", "two hills and a valley", "xyz " * 25_000, "lone \ud800 surrogate", "\x00\x01 a"]
    found = encoder.encode(texts)

    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found, np.concatenate([encoder.encode([text]) for text in texts]), atol=1e-6)


def test_texts_without_tokens_are_zeros(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, STATIC.dimension)
    assert not encoder.encode(["", "  ", "\x00"]).any()


def test_threads_give_equal_vectors(encoder: Encoder) -> None:
    texts = [f"river {number} and hill {number % 7}" for number in range(50)]
    alone = encoder.encode(texts)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(encoder.encode, [texts] * 12))

    for found in together:
        np.testing.assert_array_equal(found, alone)


def test_a_static_encoder_imports_no_network_library() -> None:
    code = (
        "import sys; from router.encoders import load_encoder; load_encoder('static').encode(['a']);"
        "print([m for m in ('torch', 'transformers', 'openvino', 'model2vec') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_token_states_need_a_transformer() -> None:
    with pytest.raises(EncoderError, match="is static: a transformer is needed"):
        load_transformer("static")


def test_other_static_weights_are_rejected(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, TOKENIZERS["words"](), ARRAYS["vectors"])
    with pytest.raises(EncoderError, match="expected"):
        find(replace(STATIC, id=str(folder)))


BROKEN: dict[str, dict[str, Any]] = {
    "no embeddings": {"vectors": VECTORS},
    "flat embeddings": {"embeddings": VECTORS[:, 0].copy()},
    "too few vectors": {"embeddings": VECTORS[:2].copy()},
    "too few weights": {"embeddings": VECTORS, "weights": WEIGHTS[:2].copy()},
    "not finite": {"embeddings": np.full_like(VECTORS, np.nan)},
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_static_folder_is_reported(tmp_path: Path, fault: str) -> None:
    with pytest.raises(EncoderError, match=r"encoder in "):
        load_encoder(str(folder_of(tmp_path, TOKENIZERS["words"](), BROKEN[fault])))


def test_eight_bits_change_directions_by_little(encoder: Encoder) -> None:
    arrays = load_file(str(find("static").folder / "model.safetensors"))
    largest = np.abs(arrays["embeddings"]).max(axis=1)

    assert arrays["embeddings"].dtype == np.int8
    assert (largest == 127).all()  # every row uses the whole range
