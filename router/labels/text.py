"""Labels from the text alone: equal, contained, the same number, the same choice."""

import math
import re
from collections.abc import Sequence

import numpy as np

from router.answers import chosen_letter, last_number, normal
from router.core import FloatArray
from router.validation import NotNegative


class Exact:
    """1 when response and reference are equal but for case, space and a final full stop."""

    def label(
        self, responses: Sequence[str], references: Sequence[str], queries: Sequence[str]
    ) -> FloatArray:
        pairs = zip(responses, references, strict=True)
        return np.array([float(normal(response) == normal(reference)) for response, reference in pairs])


class Contains:
    """1 when the response contains the reference as whole words."""

    def label(
        self, responses: Sequence[str], references: Sequence[str], queries: Sequence[str]
    ) -> FloatArray:
        def holds(response: str, reference: str) -> bool:
            wanted = normal(reference)
            return (
                bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", normal(response)) is not None
            )

        return np.array([float(holds(a, b)) for a, b in zip(responses, references, strict=True)])


class Numeric:
    """1 when the response's last number equals the reference's last number.

    Args:
        tolerance: relative difference that still counts as equal.
    """

    def __init__(self, tolerance: NotNegative = 1e-6) -> None:
        self.tolerance = tolerance

    def label(
        self, responses: Sequence[str], references: Sequence[str], queries: Sequence[str]
    ) -> FloatArray:
        def same(response: str, reference: str) -> bool:
            found, wanted = last_number(response), last_number(reference)
            if found is None or wanted is None:
                return False
            return math.isclose(found, wanted, rel_tol=self.tolerance, abs_tol=self.tolerance)

        return np.array([float(same(a, b)) for a, b in zip(responses, references, strict=True)])


class Choice:
    """1 when the response settles on the reference's letter, for multiple choice."""

    def label(
        self, responses: Sequence[str], references: Sequence[str], queries: Sequence[str]
    ) -> FloatArray:
        pairs = zip(responses, references, strict=True)
        return np.array(
            [float(chosen_letter(a) is not None and chosen_letter(a) == chosen_letter(b)) for a, b in pairs]
        )
