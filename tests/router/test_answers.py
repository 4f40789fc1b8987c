"""Final answers are read from every usual form, and equal ones are equal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.answers import agreement, final_answer

FORMS = {
    "tag": ("I think <answer>7</answer> no, <answer>G+2 F+2</answer>", "g+2f+2"),
    "open tag": ("so <answer>12", "12"),
    "json": ('```json\n{"reasoning": "twice 15", "answer": "30"}\n```', "30"),
    "json list": ('{"answer": ["a b"]}', "['ab']"),
    "code": ('{"answer": "[\'a b\']"}', "['ab']"),
    "broken json": ("{\"answer\": 'ha'}", "ha"),
    "true": ('{"answer": true}', "true"),
    "boxed": (r"thus $\boxed{\dfrac{1}{2}}$, as wanted", "1/2"),
    "escaped box": ('{"answer": "\\boxed{7}"}', "7"),
    "named": ("Some steps.\nThe final answer is: **42 dollars**.", "42"),
    "hashes": ("3 + 4 = 7\n#### 1,234", "1234"),
    "letter": ("It must be metal.\nAnswer: (B) iron", "b"),
    "lone letter": ("(C)", "c"),
    "one line": ("Brodie", "brodie"),
    "equation": ('{"answer": "x = 5.0"}', "5"),
    "number": ("First 3 of them.\nThen 15 more are left", "15"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_final_answer_is_read(form: str) -> None:
    text, expected = FORMS[form]

    assert final_answer(text) == expected


@pytest.mark.parametrize("text", ["", "  \n", "No idea.\nNone at all."])
def test_text_without_any_has_no_final_answer(text: str) -> None:
    assert final_answer(text) is None


def test_answers_agree_across_forms() -> None:
    assert agreement('{"answer": "1,200 apples"}', r"so \boxed{1200}") == 1.0
    assert agreement("Answer: B", "Answer: C") == 0.0
    assert agreement("Answer: B", "") is None


def test_symbols_are_no_units() -> None:
    assert agreement("<answer>2x</answer>", "<answer>2y</answer>") == 0.0


@given(st.text(max_size=300))
def test_any_text_is_read_without_an_error(text: str) -> None:
    for form in (text, f'{{"answer": {text}', f"<answer>{text}", rf"\boxed{{{text}}}"):
        assert final_answer(form) == final_answer(form)
