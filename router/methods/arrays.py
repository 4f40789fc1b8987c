"""Take a method's arrays from a saved policy, with a clear error when they do not fit."""

from collections.abc import Mapping

from router.core import FloatArray
from router.errors import WeightsError


def take(arrays: Mapping[str, FloatArray], *names: str) -> list[FloatArray]:
    """The named arrays, in that order.

    Raises:
        WeightsError: one is missing, or there are others.
    """
    if set(arrays) != set(names):
        stored, expected = ", ".join(sorted(arrays)) or "none", ", ".join(sorted(names))
        raise WeightsError(f"stored arrays are {stored}, this method has {expected}")
    return [arrays[name] for name in names]
