"""Quality labels: how good each response is, by a named rule.

A labeler takes rows of outcomes and returns each row's labels: `quality` in [0, 1], and others that it has.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from pydantic import ValidationError

from router.core import FloatArray
from router.data.outcomes import Row
from router.errors import InputError, OutcomesError
from router.validation import check_type, explain


class TextLabeler(Protocol):
    """A labeler that reads only response, reference and query."""

    def label(
        self, responses: Sequence[str], references: Sequence[str], queries: Sequence[str]
    ) -> FloatArray:
        """Quality of each response, [n] in [0, 1]."""
        ...


class RowLabeler(Protocol):
    """A labeler that reads whole rows, and may fill more columns than `quality`."""

    def label_rows(self, rows: Sequence[Row]) -> Sequence[dict[str, float] | OutcomesError]:
        """The columns to set in each row, `quality` in [0, 1] among them; an error where it has no label."""
        ...


Labeler = TextLabeler | RowLabeler
LABELERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "exact": ("router.labels.text:Exact", ("response", "reference")),
    "numeric": ("router.labels.text:Numeric", ("response", "reference")),
    "contains": ("router.labels.text:Contains", ("response", "reference")),
    "choice": ("router.labels.text:Choice", ("response", "reference")),
    "bertsim": ("router.labels.bertsim:BertSim", ("response", "reference")),
    "code": ("router.labels.code:Code", ("response", "reference")),
    "judge": ("router.labels.judge:Judge", ("query", "response")),
    "nll": ("router.labels.nll:Nll", ("query", "expert", "reference")),
}
"""Name → (class, the texts that every row needs)."""
CACHED = ("judge", "nll")
"""Labelers that call an endpoint, and take a file `cache` for its answers."""


def get(name: str, **options: Any) -> Labeler:
    """A labeler by name.

    Raises:
        InputError: unknown, or an option of another type or range.
        TypeError: options that it does not take.
    """
    module, _, attribute = _known(name)[0].partition(":")
    make: Callable[..., Labeler] = getattr(import_module(module), attribute)
    signature = inspect.signature(make, eval_str=True).parameters
    for option in options.keys() & signature.keys():
        try:
            check_type(options[option], signature[option].annotation)
        except ValidationError as error:
            raise InputError(explain(error, f"quality {name!r}, {option}")) from error
    return make(**options)


def label_rows(
    name: str,
    labeler: Labeler,
    rows: Sequence[Row],
    *,
    where: str = "outcomes",
    left_out: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """The rows with their labels; rows without one are left out.

    Args:
        name: the labeler's name.
        labeler: that labeler, as `get` returns it.
        rows: outcomes with the texts that it needs.
        where: the source of the rows, for errors.
        left_out: called with `row 3: reason` for each row without a label.

    Raises:
        OutcomesError: a row lacks a text that this labeler needs, or no row got a label.
    """
    for number, row in enumerate(rows, start=1):
        for field in _known(name)[1]:
            if not isinstance(row.get(field), str):
                found = "nothing" if row.get(field) is None else type(row[field]).__name__
                raise OutcomesError(f"{where}, row {number}: {field} must be a text, found {found}")
    rule = getattr(labeler, "label_rows", None)
    if rule is not None:
        return _with_labels(rows, rule(rows), left_out)
    quality = labeler.label(  # type: ignore[union-attr]  # not a RowLabeler, so the other
        [row["response"] for row in rows],
        [row["reference"] for row in rows],
        [row.get("query") or "" for row in rows],
    )
    return [{**row, "quality": float(value)} for row, value in zip(rows, quality, strict=True)]


def _with_labels(
    rows: Sequence[Row], found: Sequence[dict[str, float] | OutcomesError], left_out: Callable[[str], None]
) -> list[Row]:
    labelled = []
    for number, (row, label) in enumerate(zip(rows, found, strict=True), start=1):
        if isinstance(label, OutcomesError):
            left_out(f"row {number}: {label}")
        else:
            labelled.append({**row, **label})
    if not labelled:
        raise OutcomesError(f"no row got a label; the first: {found[0]}")
    return labelled


def _known(name: str) -> tuple[str, tuple[str, ...]]:
    if name not in LABELERS:
        raise InputError(f"quality {name!r} is unknown; known: {', '.join(LABELERS)}")
    return LABELERS[name]
