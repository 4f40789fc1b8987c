"""Parquet files of other programs are read as they are meant, or are one clear error."""

import datetime
import decimal
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from router.data.outcomes import read_outcomes, read_rows, write_rows
from router.data.parquet import read_parquet
from router.errors import OutcomesError
from tests.router.data_sets import rows

DAY = datetime.date(2024, 1, 2)
TIME = datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
ID = uuid.UUID(int=7)


def written(folder: Path, changed: dict[str, pa.Array]) -> Path:
    """Outcomes of two experts and one query, some columns of another kind."""
    table = pa.Table.from_pylist(rows(1)[:2])
    for name, column in changed.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, column)
    file = folder / "o.parquet"
    pq.write_table(table, file)
    return file


@pytest.mark.parametrize(
    ("column", "kind", "values", "read"),
    [
        ("quality", pa.decimal128(3, 2), [decimal.Decimal("0.25"), decimal.Decimal(1)], [0.25, 1.0]),
        ("quality", pa.float16(), [0.5, 1.0], [0.5, 1.0]),
        ("quality", pa.uint8(), [0, 1], [0, 1]),
        ("latency_s", pa.duration("ns"), [1_500_000_001, 0], [1.500000001, 0.0]),
        ("latency_s", pa.duration("s"), [90, None], [90.0, None]),
        ("query_id", pa.date32(), [DAY, DAY], ["2024-01-02"] * 2),
        ("query_id", pa.timestamp("s"), [TIME, TIME], ["2024-01-02 03:04:05.000"] * 2),
        ("query_id", pa.timestamp("ns"), [1, 1], ["1970-01-01 00:00:00.000000001"] * 2),
        ("query_id", pa.uuid(), [ID.bytes, ID.bytes], [str(ID)] * 2),
        ("query", pa.binary(), ["où?".encode()] * 2, ["où?"] * 2),
        ("query", pa.large_string(), ["x"] * 2, ["x"] * 2),
        ("task", pa.dictionary(pa.int8(), pa.string()), ["a", None], ["a", None]),
    ],
)
def test_every_kind_is_read_as_it_is_meant(
    tmp_path: Path, column: str, kind: pa.DataType, values: list[Any], read: list[Any]
) -> None:
    file = written(tmp_path, {column: pa.array(values, type=kind)})

    assert [row[column] for row in read_outcomes(file)] == read


@pytest.mark.parametrize(
    ("column", "kind", "values", "message"),
    [
        ("quality", pa.date32(), [DAY, DAY], "row 1: quality must be a number in [0, 1], found '2024-01-02'"),
        ("quality", pa.bool_(), [True, False], "quality must be a number in [0, 1], found True"),
        ("quality", pa.list_(pa.float64()), [[0.5], [1.0]], "must be a number in [0, 1], found [0.5]"),
        ("latency_s", pa.timestamp("ns"), [5, 5], "latency_s must be a number, found '1970-01-01"),
        (
            "query",
            pa.binary(),
            [b"\xff", b"\xff"],
            "column 'query' holds binary values that are neither text",
        ),
        ("query", pa.list_(pa.string()), [["a"], ["a"]], "query must be a non-empty text, found ['a']"),
    ],
)
def test_a_kind_without_meaning_is_one_clear_error(
    tmp_path: Path, column: str, kind: pa.DataType, values: list[Any], message: str
) -> None:
    file = written(tmp_path, {column: pa.array(values, type=kind)})

    with pytest.raises(OutcomesError) as caught:
        read_outcomes(file)

    assert message in str(caught.value)


def test_a_column_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows(1)[:2])
    pq.write_table(table.append_column("quality", pa.array([0.0, 0.0])), tmp_path / "o.parquet")

    with pytest.raises(OutcomesError, match="has the column 'quality' twice"):
        read_parquet(tmp_path / "o.parquet")


def test_a_folders_name_is_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "split=test"
    folder.mkdir()

    assert "split" not in read_parquet(written(folder, {}))[0]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_columns_of_others_survive_being_written_again(tmp_path: Path, ending: str) -> None:
    nested = pa.array([{"day": DAY}, {"day": None}], type=pa.struct([("day", pa.date32())]))
    file = written(tmp_path, {"seen": pa.array([TIME, TIME], type=pa.timestamp("us")), "more": nested})
    again = tmp_path / f"again.{ending}"

    write_rows(again, read_rows(file))

    assert len(read_outcomes(again)) == 2
    assert str(read_rows(again)[0]["more"]["day"]) == "2024-01-02"
    assert read_rows(again)[0]["seen"].startswith("2024-01-02 03:04:05")
