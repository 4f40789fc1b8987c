"""The rules that read text alone, and the table that names them."""

import pytest

from router import labels
from router.errors import InputError, OutcomesError


@pytest.mark.parametrize(
    ("rule", "response", "reference", "quality"),
    [
        ("exact", " Paris. ", "paris", 1.0),
        ("exact", "Paris, France", "Paris", 0.0),
        ("contains", "It is Paris, of course", "paris", 1.0),
        ("contains", "Comparison", "paris", 0.0),
        ("contains", "anything", "", 0.0),
        ("numeric", "so 1,234.50 it is", "#### 1234.5", 1.0),
        ("numeric", "first 7, then 8", "7", 0.0),
        ("numeric", "none", "7", 0.0),
        ("numeric", "−3", "-3", 1.0),
        ("choice", "The answer is (B).", "B", 1.0),
        ("choice", "A looks right, but the answer is C", "A", 0.0),
        ("choice", "no letter", "B", 0.0),
        ("choice", "B. I chose this because it fits", "B", 1.0),
        ("choice", "B) because I know it", "B", 1.0),
        ("choice", "B. A dog is a mammal.", "B", 1.0),
        ("choice", "The answer is a bit subtle, but it is B.", "B", 1.0),
        ("choice", "The choice I made is B", "B", 1.0),
        ("choice", "I'm sure it is\nB\nI know it", "B", 1.0),
        ("choice", "A is right, I think", "A", 1.0),
        ("choice", "The answer is A because it fits", "A", 1.0),
        ("choice", "Answer: b", "B", 1.0),
        ("choice", "(C)", "C", 1.0),
        ("choice", "**D**", "D", 1.0),
        ("choice", "A", "A", 1.0),
        ("choice", "A\nBecause it fits", "A", 1.0),
        ("choice", "the answer is (c).", "C", 1.0),
        ("choice", "The answer is: **B**", "B", 1.0),
        ("choice", "Option B", "B", 1.0),
    ],
)
def test_each_rule_by_example(rule: str, response: str, reference: str, quality: float) -> None:
    row = {"query": "q", "response": response, "reference": reference}

    (found,) = labels.label_rows(rule, labels.get(rule), [row])

    assert found == {**row, "quality": quality}


@pytest.mark.parametrize("name", ["exact", "judge", "nll", "code"])
def test_a_row_without_what_the_rule_reads_is_named(name: str) -> None:
    with pytest.raises(OutcomesError, match=r"row 1: .* must be a text, found"):
        labels.label_rows(name, labels.get("exact"), [{"query_id": "1"}])


def test_an_unknown_rule_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="known: exact, numeric"):
        labels.get("guess")
