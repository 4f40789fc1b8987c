"""Quality labels: how good each response is, by a rule that can be named.

A labeler takes responses, references and queries of equal length and gives numbers in [0, 1].
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from router.core import FloatArray
from router.errors import InputError


class Labeler(Protocol):
    """One way to judge responses."""

    def label(
        self, responses: Sequence[str], references: Sequence[str], queries: Sequence[str]
    ) -> FloatArray:
        """Quality of each response, [n] in [0, 1]."""
        ...


LABELERS: Mapping[str, str] = {
    "exact": "router.labels.text:Exact",
    "numeric": "router.labels.text:Numeric",
    "contains": "router.labels.text:Contains",
    "choice": "router.labels.text:Choice",
    "bertsim": "router.labels.bertsim:BertSim",
}


def get(name: str, **options: Any) -> Labeler:
    """A labeler by name.

    Raises:
        InputError: unknown.
    """
    if name not in LABELERS:
        raise InputError(f"quality {name!r} is unknown; known: {', '.join(LABELERS)}")
    module, _, attribute = LABELERS[name].partition(":")
    make: Callable[..., Labeler] = getattr(import_module(module), attribute)
    return make(**options)
