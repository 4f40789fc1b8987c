"""The rules that read text alone, and the table that names them."""

import time
from typing import Any

import pytest

from router import labels
from router.answers import last_number
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
        ("numeric", "\\boxed{9{,}500}", "9500", 1.0),
        ("numeric", "$9{,}500$", "9,500", 1.0),
        ("numeric", "12\\,345", "12345", 1.0),
        ("numeric", "12\u00a0345", "12345", 1.0),
        ("numeric", "12\u202f345\u202f678.5", "12345678.5", 1.0),
        ("numeric", "12\u2009345", "12345", 1.0),
        ("numeric", "12'345", "12345", 1.0),
        ("numeric", "12’345 francs", "12345", 1.0),
        ("numeric", "9,\\!500", "9500", 1.0),
        ("numeric", "9{\\,}500", "9500", 1.0),
        ("numeric", "1,234\u00a0567", "567", 1.0),
        ("numeric", "1,2345", "2345", 1.0),
        ("numeric", "pick 3,4", "4", 1.0),
        ("numeric", "about 1.5 \\times 10^{3}", "1500", 1.0),
        ("numeric", "1.5×10³ m", "1500", 1.0),
        ("numeric", "-2 * 10**-3", "-0.002", 1.0),
        ("numeric", "10^6", "1000000", 1.0),
        ("numeric", "2 \\cdot 10⁻²", "0.02", 1.0),
        ("numeric", "3 × 10", "10", 1.0),
        ("numeric", "1e999", "1e998", 0.0),
        ("numeric", "٣٤", "34", 1.0),
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


@pytest.mark.parametrize(
    "text", ["7" * 200_000, "7,000" * 50_000, "7 " * 100_000, "7" + " " * 200_000, "7\\" * 99_999]
)
def test_degenerate_answers_are_searched_in_linear_time(text: str) -> None:
    before = time.process_time()
    last_number(text)

    assert time.process_time() - before < 2.0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("numeric", {"tolerance": float("nan")}),
        ("numeric", {"tolerance": -1}),
        ("numeric", {"tolerance": "0.1"}),
        ("judge", {"endpoint": "http://e", "model": "m", "timeout_s": float("inf")}),
        ("judge", {"endpoint": "http://e", "model": "m", "concurrency": 0}),
        ("judge", {"endpoint": "http://e", "model": 7}),
        ("judge", {"endpoint": "http://e", "model": "m", "max_tokens": -5}),
        ("nll", {"endpoint": "http://e", "timeout_s": 0}),
        ("nll", {"endpoint": "http://e", "concurrency": True}),
    ],
)
def test_options_of_the_wrong_kind_or_range_are_rejected(name: str, options: dict[str, Any]) -> None:
    (wrong,) = options.keys() & {"tolerance", "timeout_s", "concurrency", "max_tokens"} or {"model"}
    with pytest.raises(InputError, match=f"^quality '{name}', {wrong}: "):
        labels.get(name, **options)
