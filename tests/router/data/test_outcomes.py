"""The outcomes file says precisely what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from router.data.outcomes import read_outcomes, write_rows
from router.errors import OutcomesError
from tests.router.data_sets import rows


def written(file: Path, made: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return file


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_what_is_written_is_read(tmp_path: Path, ending: str) -> None:
    more = {"response": "é 文", "sample": 0, "token_logprobs": [-0.5, 0.0], "finish_reason": "stop"}
    made = [{**row, "cost_usd": 1e-6, **more} for row in rows(10)]
    write_rows(tmp_path / f"o.{ending}", made)

    assert read_outcomes(tmp_path / f"o.{ending}") == made
    assert [file.name for file in tmp_path.iterdir()] == [f"o.{ending}"]


def test_a_column_of_nan_is_read_as_missing(tmp_path: Path) -> None:
    # As pandas writes a data frame: NaN for what is missing, a note of its own for the index.
    table = pa.Table.from_pylist([row | {"nll": float("nan")} for row in rows(10)])
    pq.write_table(table.replace_schema_metadata({"pandas": "{}"}), tmp_path / "o.parquet")

    assert all(row["nll"] is None for row in read_outcomes(tmp_path / "o.parquet"))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "above": ({"quality": 1.5}, "row 3: quality must be a number in [0, 1], found 1.5"),
    "below": ({"quality": -0.1}, "quality must be a number in [0, 1], found -0.1"),
    "nan": ({"quality": float("nan")}, "quality must be a number in [0, 1], found nan"),
    "none": ({"quality": None}, "quality must be a number in [0, 1], found None"),
    "text": ({"quality": "good"}, "quality must be a number in [0, 1], found 'good'"),
    "bool": ({"quality": True}, "quality must be a number in [0, 1], found True"),
    "id": ({"query_id": 7}, "row 3: query_id must be a non-empty text, found 7"),
    "expert": ({"expert": ""}, "expert must be a non-empty text"),
    "query": ({"query": None}, "query must be a non-empty text, found None"),
    "tokens": (
        {"completion_tokens": -3},
        "completion_tokens must be a finite number of at least 0, found -3",
    ),
    "cost": ({"cost_usd": float("inf")}, "cost_usd must be a finite number of at least 0, found inf"),
    "latency": ({"latency_s": "fast"}, "latency_s must be a number, found 'fast'"),
    "nll": ({"nll": float("inf")}, "nll must be a finite number, found inf"),
    "huge": ({"prompt_tokens": 10**400}, "prompt_tokens must be a finite number of at least 0, found 1000"),
    "task": ({"task": 5}, "task must be a text, found 5"),
    "sample": ({"sample": -1}, "sample must be a whole number from 0 to 63, found -1"),
    "logprobs": ({"token_logprobs": [0.1, "x"]}, "token_logprobs must be a list of at most 4096 finite"),
    "certain": ({"token_logprobs": [float("-inf")]}, "token_logprobs must be a list"),
    "finish": ({"finish_reason": 1}, "finish_reason must be a text, found 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_value_is_named_with_its_row(tmp_path: Path, case: str) -> None:
    change, told = BAD[case]
    made = rows(5)
    made[2] = made[2] | change
    with pytest.raises(OutcomesError) as caught:
        read_outcomes(written(tmp_path / "o.jsonl", made))

    assert told in str(caught.value)


@pytest.mark.parametrize("column", ["query_id", "query", "expert"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    made = [{name: value for name, value in row.items() if name != column} for row in rows(3)]
    with pytest.raises(OutcomesError, match=f"lacks the column '{column}'"):
        read_outcomes(written(tmp_path / "o.jsonl", made))


def test_outcomes_without_quality_are_to_be_labelled_first(tmp_path: Path) -> None:
    made = [{name: value for name, value in row.items() if name != "quality"} for row in rows(3)]
    with pytest.raises(OutcomesError, match="label it first with `to-router label`"):
        read_outcomes(written(tmp_path / "o.jsonl", made))


def test_repeated_rows_are_merged_and_contradictions_rejected(tmp_path: Path) -> None:
    made = rows(5)

    assert read_outcomes(written(tmp_path / "o.jsonl", made + made)) == made
    made.append(made[0] | {"quality": 1 - made[0]["quality"]})
    with pytest.raises(OutcomesError, match="two different outcomes of expert 'sums'"):
        read_outcomes(written(tmp_path / "o.jsonl", made))


def test_one_id_stands_for_one_query(tmp_path: Path) -> None:
    made = rows(2)
    made[1]["query"] = "another"
    with pytest.raises(OutcomesError, match="'q0' has two different queries"):
        read_outcomes(written(tmp_path / "o.jsonl", made))


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("none.jsonl", None, "no such file"),
        ("empty.jsonl", b"", "is empty"),
        ("blank.jsonl", b"\n\n", "is empty"),
        ("list.jsonl", b"[1]\n", "line 1 must be a JSON object, found list"),
        ("cut.jsonl", b'{"query": ', "line 1 is not JSON"),
        ("long.jsonl", b'{"nll": ' + b"9" * 5000 + b"}\n", "line 1 is not JSON"),
        ("latin.jsonl", b'{"query": "\xe9"}\n', "is not UTF-8"),
        ("fake.parquet", b"PAR1 but not really", "is not a Parquet file"),
        ("empty.parquet", b"", "is not a Parquet file"),
    ],
)
def test_a_file_that_holds_no_outcomes_is_rejected(
    tmp_path: Path, name: str, data: bytes | None, told: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(OutcomesError, match=told):
        read_outcomes(tmp_path / name)


def test_a_parquet_file_without_rows_is_rejected(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows(1))[:0], tmp_path / "o.parquet")
    with pytest.raises(OutcomesError, match="is empty"):
        read_outcomes(tmp_path / "o.parquet")


def test_a_whole_number_that_is_still_a_float_is_read_and_fits_no_parquet_file(tmp_path: Path) -> None:
    made = [rows(1)[0] | {"prompt_tokens": 10**30}]

    assert read_outcomes(written(tmp_path / "o.jsonl", made)) == made
    with pytest.raises(OutcomesError, match="'prompt_tokens' cannot be written as int64"):
        write_rows(tmp_path / "o.parquet", made)


def test_when_writing_fails_nothing_is_left_behind(tmp_path: Path) -> None:
    with pytest.raises(OutcomesError, match="cannot be written"):
        write_rows(tmp_path / "o.parquet", [{"quality": "a text"}])
    assert list(tmp_path.iterdir()) == []


def test_lone_surrogates_from_json_escapes_can_be_written(tmp_path: Path) -> None:
    for ending in ("jsonl", "parquet"):
        write_rows(tmp_path / f"o.{ending}", [rows(1)[0] | {"response": "a\ud800b"}])
        assert read_outcomes(tmp_path / f"o.{ending}")[0]["response"] == "a?b"
