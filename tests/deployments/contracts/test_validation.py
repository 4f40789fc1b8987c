"""JSON of clients: bodies that are no object, and types in JSON's words."""

from typing import Any

import pytest

from deployments.contracts.errors import BadRequest, ErrorCode
from deployments.contracts.validation import json_object, json_type


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"1", b"null", b"\xff"])
def test_a_body_that_is_no_object_is_rejected(raw: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        json_object(raw)

    assert caught.value.code == ErrorCode.INVALID_JSON


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"a": 1}, "an object"),
        ({}, "an empty object"),
        ([0], "a list"),
        ([], "an empty list"),
        ("a", "a string"),
        ("", "an empty string"),
        (True, "true or false"),
        (None, "nothing"),
        (1, "a number"),
    ],
)
def test_types_are_named_in_the_words_of_json(value: Any, name: str) -> None:
    assert json_type(value) == name


@pytest.mark.parametrize("value", [b"[]", b'{"a":[]}', b"0"])
def test_a_body_of_too_many_values_is_rejected_before_it_is_parsed(value: bytes) -> None:
    raw = b'{"metadata":[' + b",".join([value] * 2_000_001) + b"]"  # the end is missing: it is not parsed
    with pytest.raises(BadRequest) as error:
        json_object(raw)

    assert "too many values" in str(error.value)


def test_one_long_text_is_no_body_of_many_values() -> None:
    assert len(json_object(b'{"a":"' + b"word " * 500_000 + b'"}')["a"]) == 2_500_000
