"""The catalogue holds no row without a source."""

import json
from typing import Any

import pytest

from router.errors import InputError
from router.priors.catalogue import COLUMNS, KINDS, load_catalogue, parse_catalogue

SOURCE = {
    "title": "A benchmark",
    "address": "https://example.org/table",
    "licence": "Apache-2.0",
    "read": "2026-11-29",
    "n": "counted",
    "input_sha256": "0" * 64,
}
ROW = "bench,bench-code,code,llama-3.1-8b,0.5,100,,2024-07-23,"
LONGEST_NAME = 80


def table(*rows: str) -> str:
    return "\n".join([",".join(COLUMNS), *rows])


def test_every_row_of_the_package_has_a_source() -> None:
    catalogue = load_catalogue()

    assert {row.source for row in catalogue.rows} == set(catalogue.sources)
    assert {row.kind for row in catalogue.rows} == set(KINDS)


@pytest.mark.parametrize("missing", ["address", "read", "licence", "n", "input_sha256"])
def test_a_source_without_its_facts_is_an_error(missing: str) -> None:
    source: dict[str, Any] = {key: value for key, value in SOURCE.items() if key != missing}

    with pytest.raises(InputError, match=missing):
        parse_catalogue(table(ROW), json.dumps({"bench": source}))


@pytest.mark.parametrize(
    "row",
    [
        ROW.replace("bench,", "hearsay,", 1),
        ROW.replace(",100,", ",0,"),
        ROW.replace(",100,", ",,"),
        ROW.replace(",0.5,", ",1.5,"),
        ROW.replace(",code,", ",juggling,"),
    ],
)
def test_a_row_without_source_n_or_kind_is_an_error(row: str) -> None:
    with pytest.raises(InputError):
        parse_catalogue(table(row), json.dumps({"bench": SOURCE}))


def test_the_package_holds_figures_and_no_text_of_a_query() -> None:
    names = {name for row in load_catalogue().rows for name in (row.benchmark, row.model)}

    assert max(map(len, names)) <= LONGEST_NAME
    assert not any("\n" in name or "?" in name for name in names)


def test_benchmarks_can_be_left_out() -> None:
    catalogue = parse_catalogue(table(ROW), json.dumps({"bench": SOURCE}))

    assert len(catalogue.without(["other-"]).rows) == 1
    assert len(catalogue.without(["bench-"]).rows) == 0
