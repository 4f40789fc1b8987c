"""An error of pydantic as one line: key, expectation, value."""

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from router.validation import LONGEST_VALUE, Count, Name, Number, explain, shortened


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: Count
    share: Number = 0.5


def error(**values: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Thing.model_validate(values)
    return caught.value


def test_each_invalid_key_is_explained() -> None:
    line = explain(error(share="a", more=1), "thing")

    assert line == (
        "thing.count: missing; thing.share: Input should be a valid number, found 'a'; "
        "thing.more: unknown key"
    )


@pytest.mark.parametrize("wrong", [0, True, "3", 1.5])
def test_a_count_is_a_whole_number_from_one(wrong: object) -> None:
    assert explain(error(count=wrong)).startswith("count: ")


def test_long_values_are_cut() -> None:
    assert len(shortened("x" * 1000)) == LONGEST_VALUE
    assert shortened(10**5000) == "a number of thousands of digits"


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\x1b[31mred", "a\u202eb", "a\u2028b", "a\x00", ""])
def test_a_name_that_could_control_a_terminal_is_invalid(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)

    assert TypeAdapter(Name).validate_python("Größe 7b-instruct (v2)") == "Größe 7b-instruct (v2)"
