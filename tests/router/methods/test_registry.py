"""A recipe's parameters are of the types that their method names."""

from typing import Any

import pytest

from router.errors import MethodError
from router.methods.registry import make


@pytest.mark.parametrize(
    ("method", "params", "told"),
    [
        ("knn", {"k": "abc"}, "method 'knn': k must be a whole number, found 'abc'"),
        ("knn", {"k": 5.5}, "k must be a whole number, found 5.5"),
        ("knn", {"k": True}, "k must be a whole number, found True"),
        ("knn", {"k": None}, "k must be a whole number, found None"),
        ("linear", {"penalty": "10"}, "penalty must be a number, found '10'"),
        ("linear", {"penalty": float("nan")}, "penalty must be a number, found nan"),
        ("linear", {"surface": 1}, "surface must be true or false, found 1"),
        ("lexical", {"hashing": 3}, "hashing must be a text, found 3"),
        ("fixed", {"column": "large"}, "column must be a whole number, found 'large'"),
        ("ensemble", {"members": 5}, "members must be a list, found 5"),
        ("knn", {7: 1}, "found '7'"),
    ],
)
def test_a_parameter_of_another_type_is_refused(method: str, params: dict[Any, Any], told: str) -> None:
    with pytest.raises(MethodError) as caught:
        make(method, params)

    assert told in str(caught.value)


def test_a_whole_number_is_a_number_and_nothing_is_the_default() -> None:
    assert make("linear", {"penalty": 10}).params["penalty"] == 10
    assert make("fixed", {"column": None}).params["column"] is None
    assert make("ensemble", {"members": ["knn", {"name": "linear"}]}).name == "ensemble"
