"""What is read off a text's bytes is what its characters say."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core import FloatArray, QueryBatch
from router.methods import features
from router.methods.crc32_words import crc32_words
from router.methods.features import FEW, LONGEST_WORD, READ_CHARACTERS, WORDS, hashed_words, surface
from router.methods.linear import LexicalRouter
from tests.router.data_sets import embeddings, training

TEXTS = (
    "What is 1 plus 1?\nA. 2\n (B) 3\n\n  C: four\nNot A. here, nor in D.",
    "",
    " ",
    "A) first of all\tEND.",
    "f(x) = {x^2 + 3} / $\\pi$, x_1 <= 10;  is it > 0??",
    "日本語の質問 🙂 and ASCII",
    "x" * (READ_CHARACTERS + 50),
    "E.\n((F.\n(G)\r\n\x1cH:",
)
OPTION = re.compile(r"(?m)^\s*\(?[A-J][.):]")
SIGNS = frozenset("{}[]()=<>+*/^\\$_")


def by_characters(texts: Sequence[str]) -> FloatArray:
    """The same features, a character at a time."""
    rows = np.empty((len(texts), 9))
    for row, whole in enumerate(texts):
        text = whole[:READ_CHARACTERS]
        size, words = max(len(text), 1), text.split()
        rows[row] = (
            np.log1p(len(whole)) / 3,
            np.log1p(sum(map(str.isdigit, text))) / 2,
            np.log1p(text.count("\n")) / 2,
            np.log1p(len(OPTION.findall(text))) / 2,
            len("".join(words)) / max(len(words), 1) / 5,
            3 * sum(map(str.isupper, text)) / size,
            10 * sum(character in SIGNS for character in text) / size,
            3 * sum(not character.isascii() for character in text) / size,
            np.log1p(text.count("?")),
        )
    return rows


def test_the_surface_of_bytes_is_that_of_characters() -> None:
    np.testing.assert_allclose(surface(TEXTS), by_characters(TEXTS), atol=1e-12)


@pytest.mark.parametrize("hashed", [hashed_words, crc32_words])
def test_equal_words_have_equal_hashes_at_any_position(hashed: type) -> None:
    alone, among = hashed(["what is one PLUS one?"]), hashed([*TEXTS, "What  is one plus\none?"])
    start = among.starts[-2]

    np.testing.assert_array_equal(among.columns[start:], alone.columns)
    np.testing.assert_array_equal(among.values[start:], alone.values)
    assert alone.starts.tolist() == [0, 10]  # what is one plus ? and five pairs
    assert alone.values.max() == pytest.approx(1 + np.log(2))


@pytest.mark.parametrize("hashed", [hashed_words, crc32_words])
def test_rows_have_unit_length_and_a_product(hashed: type) -> None:
    rng = np.random.default_rng(0)
    rarity, weights = rng.uniform(1, 5, WORDS), rng.normal(size=(WORDS, 3))
    words = hashed(TEXTS).weighed(rarity)
    whole = np.zeros((len(TEXTS), WORDS))
    np.add.at(whole, (np.repeat(np.arange(len(TEXTS)), np.diff(words.starts)), words.columns), words.values)

    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), [1, 0, 0, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(hashed(TEXTS).weighed_times(rarity, weights), whole @ weights)
    np.testing.assert_allclose(hashed(TEXTS[:1]).weighed_times(rarity, weights), whole[:1] @ weights)


def test_many_texts_are_read_as_each_alone() -> None:
    many = [f"{text} {number}" for number in range(90) for text in TEXTS]
    whole, last = hashed_words(many), hashed_words(many[-1:])

    assert len(whole.starts) == len(many) + 1
    np.testing.assert_array_equal(whole.columns[whole.starts[-2] :], last.columns)
    np.testing.assert_array_equal(surface(many)[-1:], surface(many[-1:]))


def test_no_text_is_borne() -> None:
    assert surface(()).shape == (0, 9)
    assert hashed_words(()).weighed_times(np.ones(WORDS), np.ones((WORDS, 2))).shape == (0, 2)


@given(st.lists(st.text(max_size=80), min_size=FEW + 1, max_size=FEW + 6))
def test_a_few_texts_are_hashed_as_among_many(texts: list[str]) -> None:
    texts += ["x" * (LONGEST_WORD + 1)]
    among = hashed_words(texts)
    for number, text in enumerate(texts):
        alone = hashed_words([text])
        part = slice(among.starts[number], among.starts[number + 1])

        np.testing.assert_array_equal(among.columns[part], alone.columns)
        np.testing.assert_array_equal(among.values[part], alone.values)


def test_the_table_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MOST_WORDS", 10)
    monkeypatch.setattr(features, "_HASHES", type(features._HASHES)())
    many = [f"number {number}" for number in range(60)]
    alone = np.concatenate([hashed_words([text]).columns for text in many])

    np.testing.assert_array_equal(alone, hashed_words(many).columns)
    assert len(features._HASHES) <= 10


def test_lexical_weights_of_an_older_policy_are_read_as_they_were_written() -> None:
    fitted = LexicalRouter(hashing="crc32").fit(training(), seed=0)
    fitted.rarity_ = np.ones(WORDS, dtype=np.float32)
    older = {name: value for name, value in fitted.arrays().items() if name != "rarity"}
    restored = LexicalRouter.restore({"penalty": 30.0}, older)
    queries = QueryBatch(TEXTS, embeddings(TEXTS))

    np.testing.assert_array_equal(restored.score(queries), fitted.score(queries))
    assert restored.params == {"penalty": 30.0, "hashing": "crc32"}
