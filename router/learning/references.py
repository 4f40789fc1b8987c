"""References of queries: right answers, and how a response is compared with each, without a judge."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from router.data.dataset import same_query
from router.data.outcomes import Row
from router.errors import InputError
from router.priors.probing import check_for, grade


@dataclass(frozen=True, slots=True)
class Reference:
    """The right answer to a query."""

    text: str
    check: str
    """How a response is compared with it: one of `CHECKS`."""


@dataclass(frozen=True)
class References:
    """The references that are known; queries that differ in case and space only are equal."""

    known: dict[str, Reference] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[Row], where: str) -> Self:
        """Those among queries, with the check that each names or that fits its text.

        Raises:
            InputError: no row has a reference, one is no text, a check is unknown or its pattern invalid, or
                a query has two references.
        """
        known: dict[str, Reference] = {}
        for row in rows:
            text = row.get("reference")
            if text is None:
                continue
            if not isinstance(text, str):
                raise InputError(f"{where}: a reference must be a text, found {text!r:.80}: put it in quotes")
            found = Reference(text, check_for(row, where))
            if known.setdefault(same_query(row["query"]), found) != found:
                raise InputError(f"{where}: the query {row['query']!r:.60} has two different references")
        if not known:
            raise InputError(f"{where}: no query has a `reference`")
        return cls(known)

    def __bool__(self) -> bool:
        return bool(self.known)

    def __contains__(self, query: str | None) -> bool:
        return query is not None and same_query(query) in self.known

    def check(self, query: str) -> str:
        """The check of a query that has a reference."""
        return self.known[same_query(query)].check

    def quality(self, row: Row) -> float:
        """Quality of a row's `response` to a `query` that has a reference."""
        found = self.known[same_query(row["query"])]
        return grade({**row, "reference": found.text, "check": found.check})


NO_REFERENCES = References()
