"""The catalogue of success rates of known models by kind of task: rows with their sources.

A data file of the package; `experiments.prior_catalogue` makes it. A row whose source lacks an address, a
date, a licence or its number of queries is an error, so that no figure comes from memory.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router.errors import InputError
from router.priors.facts import REFERENCE_YEAR, Facts, facts_of
from router.validation import explain

KINDS = ("mathematics", "code", "knowledge", "logic", "instruction", "language")
"""Kinds of task."""
COLUMNS = ("source", "benchmark", "kind", "model", "quality", "n", "tokens", "listed", "output_usd")


class Source(BaseModel):
    """Where rows come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(min_length=1)
    address: str = Field(pattern=r"^https://\S+$")
    licence: str = Field(min_length=1)
    read: str = Field(pattern=r"^20\d\d-\d\d-\d\d$")
    """The date on which it was read."""
    n: str = Field(min_length=1)
    """How the numbers of queries are known."""
    input_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the file that the maker read."""


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """The success rate of one model on one benchmark."""

    source: str
    benchmark: str
    kind: str
    model: str
    """As the source names it."""
    quality: float
    n: int
    """Number of queries."""
    tokens: float | None
    """Mean completion tokens."""
    facts: Facts


@dataclass(frozen=True)
class Catalogue:
    """Rows and their sources."""

    rows: tuple[CatalogueRow, ...]
    sources: dict[str, Source]

    def without(self, benchmarks: Sequence[str]) -> "Catalogue":
        """The catalogue without the benchmarks whose names begin with one of `benchmarks`."""
        kept = tuple(row for row in self.rows if not row.benchmark.startswith(tuple(benchmarks)))
        return Catalogue(kept, self.sources)


@cache
def load_catalogue() -> Catalogue:
    """The catalogue of this package, checked.

    Raises:
        InputError: a row is invalid, or its source lacks its address, date or licence.
    """
    folder = resources.files("router.priors").joinpath("data")
    return parse_catalogue(
        folder.joinpath("catalogue.csv").read_text(encoding="utf-8"),
        folder.joinpath("sources.json").read_text(encoding="utf-8"),
    )


def parse_catalogue(table: str, sources: str) -> Catalogue:
    """A catalogue from the text of its two files; raises as `load_catalogue`."""
    try:
        known = {name: Source.model_validate(value) for name, value in json.loads(sources).items()}
    except ValidationError as error:
        raise InputError(f"sources of the catalogue: {explain(error)}") from error
    lines = list(csv.DictReader(table.splitlines()))
    listed: dict[frozenset[str], float] = {}
    named = []
    for number, line in enumerate(lines, start=2):
        _check(line, known, number)
        price = float(line["output_usd"]) if line["output_usd"] else None
        facts = facts_of(line["model"], output_usd=price)
        named.append((line, facts))
        if facts.model is not None and (year := _listed(line, facts)) is not None:
            listed[facts.model] = min(year, listed.get(facts.model, year))
    rows = []
    for line, facts in named:
        year = facts.year if facts.year is not None else listed.get(facts.model or frozenset())
        rows.append(
            CatalogueRow(
                source=line["source"],
                benchmark=line["benchmark"],
                kind=line["kind"],
                model=line["model"],
                quality=float(line["quality"]),
                n=int(line["n"]),
                tokens=float(line["tokens"]) if line["tokens"] else None,
                facts=replace(facts, year=year),
            )
        )
    return Catalogue(tuple(rows), known)


def _check(line: dict[str, Any], sources: dict[str, Source], number: int) -> None:
    try:
        quality, n = float(line["quality"]), int(line["n"])
        fits = 0 <= quality <= 1 and n >= 1 and line["kind"] in KINDS and line["model"] and line["benchmark"]
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"catalogue, line {number}: a row needs a benchmark, a model, one of the kinds "
            f"{', '.join(KINDS)}, quality in [0, 1] and n from 1, found {line!r:.200}"
        )
    if line["source"] not in sources:
        raise InputError(f"catalogue, line {number}: source {line['source']!r} is not among the sources")


def _listed(line: dict[str, Any], facts: Facts) -> float | None:
    """Years since 2024.5 at which the source lists the model: an upper bound of its release."""
    if facts.year is not None:
        return facts.year
    if not line["listed"]:
        return None
    year, month = line["listed"].split("-")[:2]
    return round(int(year) + (int(month) - 0.5) / 12 - REFERENCE_YEAR, 2)
