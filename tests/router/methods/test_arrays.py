"""A method's arrays are all there, and no others."""

import numpy as np
import pytest

from router.errors import WeightsError
from router.methods.arrays import take


def test_arrays_are_taken_in_the_order_of_their_names() -> None:
    a, b = np.zeros(1), np.ones(1)

    assert take({"b": b, "a": a}, "a", "b") == [a, b]


@pytest.mark.parametrize("names", [(), ("a",), ("a", "b", "c")])
def test_missing_and_further_arrays_are_rejected(names: tuple[str, ...]) -> None:
    with pytest.raises(WeightsError, match=f"stored arrays are {', '.join(names) or 'none'}.*has a, b"):
        take(dict.fromkeys(names, np.zeros(1)), "a", "b")
