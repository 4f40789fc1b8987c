"""The table of words gives the tokenizer's own ids, or leaves the text to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from router.encoders import word_table
from router.encoders.source import find
from router.encoders.tokens import Tokeniser
from router.encoders.word_table import WordTable

FILE = find("static").folder / "tokenizer.json"
TOKENIZER = Tokenizer.from_file(str(FILE))
TABLE = WordTable.of(TOKENIZER)
ASCII = st.text(st.characters(max_codepoint=127), max_size=60)
LONG_WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=20, max_size=40)
PHRASES = (
    "What is 17+25?",
    "it's a `_private` [list]\n\tof {things}",
    "x" * 120 + " end",
    "UPPER lower MiXeD",
    "",
)


def ids(text: str) -> list[int]:
    found: list[int] = TOKENIZER.encode(text, add_special_tokens=False).ids
    return found


@pytest.mark.parametrize("text", PHRASES)
def test_phrases_have_the_tokenizers_ids(text: str) -> None:
    assert TABLE is not None
    assert TABLE.ids(text) == ids(text)


@given(ASCII | LONG_WORDS)
def test_any_ascii_text_has_the_tokenizers_ids(text: str) -> None:
    assert TABLE is not None
    found = TABLE.ids(text)

    assert found is None or found == ids(text)


@pytest.mark.parametrize("text", ["Österreich", "什么", "a\x00b", "mask [MASK] it", "a\x7fb", "[SEP]"])
def test_other_texts_are_left_to_the_tokenizer(text: str) -> None:
    assert TABLE is not None
    assert TABLE.ids(text) is None


def test_other_tokenizers_have_no_table() -> None:
    assert WordTable.of(Tokenizer(WordLevel({"a": 0}, unk_token="a"))) is None


def test_mixed_texts_keep_their_order() -> None:
    tokeniser = Tokeniser(FILE, 6, special_tokens=False)
    texts = ["one two", "Österreich", "three four five six seven eight nine", "什么", ""]

    assert tokeniser.ids(texts) == [ids(text)[:6] for text in texts]


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_table, "MOST_WORDS", 10)
    table = WordTable.of(TOKENIZER)
    assert table is not None
    texts = [f"number {number}" for number in range(200)]

    assert [table.ids(text) for text in texts] == [ids(text) for text in texts]
    assert len(table._words) <= 10
