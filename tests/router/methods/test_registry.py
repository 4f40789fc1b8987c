"""A recipe's parameters are of the types that their method names."""

from typing import Any

import pytest

from router.errors import MethodError
from router.methods.registry import make


@pytest.mark.parametrize(
    ("method", "params", "told"),
    [
        ("knn", {"k": "abc"}, "method 'knn': k: Input should be a valid integer, found 'abc'"),
        ("knn", {"k": 5.5}, "k: Input should be a valid integer, found 5.5"),
        ("knn", {"k": True}, "k: Input should be a valid integer, found True"),
        ("knn", {"k": None}, "k: Input should be a valid integer, found None"),
        ("linear", {"penalty": "10"}, "penalty: Input should be a valid number, found '10'"),
        ("linear", {"penalty": float("nan")}, "penalty: Input should be a finite number, found nan"),
        ("linear", {"surface": 1}, "surface: Input should be a valid boolean, found 1"),
        ("lexical", {"hashing": 3}, "hashing: Input should be a valid string, found 3"),
        ("fixed", {"column": "large"}, "column: Input should be a valid integer, found 'large'"),
        ("ensemble", {"members": 5}, "members: Input should be an instance of Sequence, found 5"),
        ("knn", {7: 1}, "found '7'"),
    ],
)
def test_a_parameter_of_another_type_is_rejected(method: str, params: dict[Any, Any], told: str) -> None:
    with pytest.raises(MethodError) as caught:
        make(method, params)

    assert told in str(caught.value)


def test_a_whole_number_is_a_number_and_nothing_is_the_default() -> None:
    assert make("linear", {"penalty": 10}).params["penalty"] == 10
    assert make("fixed", {"column": None}).params["column"] is None
    assert make("ensemble", {"members": ["knn", {"name": "linear"}]}).name == "ensemble"
