"""Shipped probes: examples of every kind of task, most with an answer that can be checked."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router.errors import InputError
from router.priors.catalogue import KINDS
from router.validation import explain

LONGEST_EXAMPLE, MOST_EXAMPLES = 1000, 250
"""Characters of an example of a kind, and examples of each kind."""
_NUMBER = re.compile(r"[-+]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Probe:
    """One query to measure experts with, or to recognise a kind by."""

    id: str
    kind: str
    task: str
    """Its family within the source."""
    query: str
    reference: str
    check: str | None
    """The label of a response: choice, numeric, contains, exact or pattern; `None` where none can decide."""
    source: str


class ProbeSource(BaseModel):
    """Where probes come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(min_length=1)
    address: str = Field(min_length=1)
    """A page, or the files of this project that hold them."""
    licence: str = Field(min_length=1)
    read: str = Field(pattern=r"^20\d\d-\d\d-\d\d$")
    """The date on which they were read or made."""


@cache
def load_probes() -> tuple[Probe, ...]:
    """The probes of this package; `experiments.prior_probes` makes them.

    Raises:
        InputError: one is invalid, or its source lacks its address, date or licence.
    """
    folder = resources.files("router.priors").joinpath("data")
    return parse_probes(
        folder.joinpath("probes.jsonl").read_text(encoding="utf-8"),
        folder.joinpath("probe_sources.json").read_text(encoding="utf-8"),
    )


def parse_probes(text: str, sources: str) -> tuple[Probe, ...]:
    """Probes from the text of their two files; raises as `load_probes`."""
    try:
        known = {name: ProbeSource.model_validate(value) for name, value in json.loads(sources).items()}
    except ValidationError as error:
        raise InputError(f"sources of the probes: {explain(error)}") from error
    try:
        found = tuple(Probe(**json.loads(line)) for line in text.splitlines())
    except (TypeError, ValueError) as error:
        raise InputError(f"probes.jsonl: {error}") from error
    if unknown := sorted({probe.kind for probe in found} - set(KINDS)):
        raise InputError(f"probes.jsonl: {unknown[0]!r} is no kind of task")
    if unknown := sorted({probe.source for probe in found} - set(known)):
        raise InputError(f"probes.jsonl: source {unknown[0]!r} is not among the sources")
    return found


def check_of(reference: str) -> str:
    """The check for a query with a reference: a number is compared as one, else it must be contained."""
    return "numeric" if _NUMBER.fullmatch(reference.strip()) else "contains"


def examples(probes: Sequence[Probe]) -> list[Probe]:
    """Short probes, some of each kind, from all tasks of it alike."""
    found = []
    for kind in KINDS:
        by_task: dict[str, list[Probe]] = {}
        for probe in probes:
            if probe.kind == kind and len(probe.query) <= LONGEST_EXAMPLE:
                by_task.setdefault(probe.task, []).append(probe)
        turns = max((len(of_task) for of_task in by_task.values()), default=0)
        mixed = [
            of_task[turn] for turn in range(turns) for of_task in by_task.values() if turn < len(of_task)
        ]
        found += mixed[:MOST_EXAMPLES]
    return found
