"""The encoder is the named one, on every runtime, for every text."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.encoders import DEFAULT, load_encoder, load_transformer
from router.encoders.source import find
from router.encoders.transformer import TransformerEncoder
from router.errors import EncoderError

TEXTS = (
    "What is 17 + 25?",
    "What is the capital of France?",
    "Reverse the word 'lantern'.",
    "Wie heißt die Hauptstadt von Österreich?",
    "什么是机器学习？",
    "🙂🙃",
    "",
    "word " * 400,
)


@pytest.fixture(scope="module")
def encoder() -> TransformerEncoder:
    return load_transformer(device="cpu")


def test_the_default_is_the_named_one(encoder: TransformerEncoder) -> None:
    assert encoder.spec == DEFAULT
    assert encoder.spec.sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert (encoder.spec.dimension, encoder.spec.max_tokens) == (384, 256)


def test_vectors_have_unit_length_and_keep_the_texts_order(encoder: TransformerEncoder) -> None:
    found = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])

    assert found.dtype == np.float32
    assert found.shape == (len(TEXTS), 384)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert (np.sum(found * alone, axis=1) > 0.999).all()  # padding changes nothing but rounding


def test_likeness_is_likeness_of_meaning(encoder: TransformerEncoder) -> None:
    a, b, c = encoder.encode(
        ["What is the capital of France?", "Name the French capital city.", "How do I boil an egg?"]
    )

    assert a @ b > 0.8
    assert a @ c < 0.3


def test_the_cpu_runtime_agrees_with_torch_in_full_precision(encoder: TransformerEncoder) -> None:
    pytest.importorskip("transformers")
    from router.encoders.tokens import Tokeniser
    from router.encoders.torch_bert import TorchBert

    source = find("default")
    torch = TransformerEncoder(
        source.spec,
        Tokeniser(source.folder / "tokenizer.json", source.spec.max_tokens),
        TorchBert(source, device="cpu", threads=1),
    )
    cosine = np.sum(encoder.encode(TEXTS) * torch.encode(TEXTS), axis=1)

    assert cosine.min() > 0.999


def test_what_lies_beyond_the_window_is_not_read(encoder: TransformerEncoder) -> None:
    head = "token " * 400
    a, b = encoder.encode([head + "alpha", head + "omega"])

    assert a @ b > 0.9999


def test_a_text_of_100_000_characters_and_broken_unicode_are_borne(encoder: TransformerEncoder) -> None:
    found = encoder.encode(["x" * 100_000, "字" * 100_000, "lone \ud800 surrogate", "\x00\x01"])

    assert np.isfinite(found).all()


def test_no_texts_have_no_vectors(encoder: TransformerEncoder) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_threads_do_not_meet(encoder: TransformerEncoder) -> None:
    texts = TEXTS[:4]
    alone = encoder.encode(texts)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(encoder.encode, [texts] * 12))

    for found in together:
        np.testing.assert_allclose(found, alone, atol=1e-6)


def test_token_states_have_a_unit_vector_for_each_token(encoder: TransformerEncoder) -> None:
    short, long = encoder.token_states(["Hi", "A longer sentence than the other."])

    assert short.shape == (3, 384)  # [CLS] hi [SEP]
    assert len(long) > len(short)
    np.testing.assert_allclose(np.linalg.norm(long, axis=1), 1, atol=1e-5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find("default").folder, tmp_path / "encoder"))


@pytest.mark.parametrize("words", [1, 5, 6, 7, 13, 14, 15, 30, 61, 62, 63, 64, 70])
def test_a_text_alone_is_what_it_is_in_company(encoder: TransformerEncoder, words: int) -> None:
    text = " ".join(["river"] * words)
    alone, together = encoder.encode([text]), encoder.encode([text, "another", "third"])
    (states,), among = encoder.token_states([text]), encoder.token_states([text, "another"])[0]

    assert float((alone[0] * together[0]).sum()) > 0.9999
    assert states.shape == among.shape == (words + 2, encoder.spec.dimension)
    assert float((states * among).sum(axis=1).min()) > 0.999


def test_a_local_folder_is_found_first(folder: Path) -> None:
    assert find(str(folder)).folder == folder


def test_other_weights_than_the_named_ones_are_rejected(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(EncoderError, match=r"has weights [0-9a-f]{12}…, expected 53aa51172d14…"):
        find(replace(DEFAULT, id=str(folder)))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_reported(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(EncoderError, match=f"lacks {name}"):
        find(str(folder))


def test_an_architecture_that_cannot_be_built_is_reported(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mpnet"}))
    with pytest.raises(EncoderError, match="is a 'mpnet' model, supported: bert, model2vec"):
        find(str(folder))


def test_an_encoder_that_is_nowhere_says_where_it_was_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EncoderError, match=r"encoder 'no/where' is not a folder"):
        find("no/where")


def test_an_unknown_device_is_rejected() -> None:
    with pytest.raises(EncoderError, match="auto, cpu or cuda, found 'tpu'"):
        load_encoder(device="tpu")
