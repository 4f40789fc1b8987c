"""References: which query has one, and how a response is compared with it."""

from typing import Any

import pytest

from router.data.outcomes import Row
from router.errors import InputError
from router.learning.references import References

QUERIES: list[Row] = [
    {"query": "What is 2 + 2?", "reference": "4"},
    {"query": "Capital of Peru?", "reference": "Lima"},
    {"query": "Reverse 'ab'", "reference": "ba", "check": "exact"},
    {"query": "Why?"},
]
KNOWN = References.of(QUERIES, "queries")


@pytest.mark.parametrize(
    ("query", "check", "right", "wrong"),
    [
        ("what is  2 + 2?", "numeric", "2 + 2 = 4.0", "40"),
        ("Capital of Peru?", "contains", "It is Lima.", "Limassol"),
        ("Reverse 'ab'", "exact", "ba.", "It is ba"),
    ],
)
def test_a_response_is_compared_by_the_querys_check(query: str, check: str, right: str, wrong: str) -> None:
    assert query in KNOWN
    assert KNOWN.check(query) == check
    assert [KNOWN.quality({"query": query, "response": text}) for text in (right, wrong)] == [1.0, 0.0]


def test_other_queries_have_no_reference() -> None:
    assert "Why?" not in KNOWN
    assert None not in KNOWN


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([{"query": "Why?"}], "no query has a `reference`"),
        ([{"query": "a", "reference": "b", "check": "taste"}], "check must be one of"),
        ([{"query": "a", "reference": "b"}, {"query": "A ", "reference": "c"}], "two different references"),
        ([{"query": "a", "reference": "(", "check": "pattern"}], "no regular expression"),
        ([{"query": "a", "reference": "b"}, {"query": "c", "reference": 4}], "must be a text, found 4"),
    ],
)
def test_references_that_cannot_be_used_are_an_error(rows: list[Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        References.of(rows, "queries")
