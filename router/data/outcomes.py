"""The outcomes file: one row for each (query, expert) and sample, Parquet or JSONL; reading, checks, writing.

Errors name the file, the row and the value. Knows nothing of embeddings or methods.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from router.data.parquet import read_parquet
from router.errors import OutcomesError
from router.files import replaced_atomically
from router.validation import shortened

KEYS = ("query_id", "query", "expert")
NUMBERS = {
    "quality": pa.float64(),
    "prompt_tokens": pa.int64(),
    "completion_tokens": pa.int64(),
    "cost_usd": pa.float64(),
    "latency_s": pa.float64(),
    "ttft_s": pa.float64(),
    "nll": pa.float64(),
}
OTHERS = {"sample": pa.int64(), "token_logprobs": pa.list_(pa.float32())}
"""Columns with checks of their own."""
TEXTS = ("response", "reference", "task", "split", "finish_reason")
MOST_SAMPLE = 63
"""Highest number of a sample."""
MOST_LOGPROBS = 4096
"""Log-probabilities of one response: its first tokens'."""
NOT_NEGATIVE = ("prompt_tokens", "completion_tokens", "cost_usd", "latency_s", "ttft_s")
Row = dict[str, Any]


def read_rows(file: Path) -> list[Row]:
    """The rows of a Parquet or JSONL file, unchecked.

    Raises:
        OutcomesError: no such file, neither Parquet nor JSONL, without plain values, or empty.
    """
    if not file.is_file():
        raise OutcomesError(f"{file}: no such file")
    rows = read_parquet(file) if file.suffix == ".parquet" else list(_read_jsonl(file))
    if not rows:
        raise OutcomesError(f"{file} is empty: at least one row is needed")
    return rows


def read_outcomes(file: Path) -> list[Row]:
    """The rows of an outcomes file, checked against the contract; exact duplicates are dropped.

    Raises:
        OutcomesError: a column is missing, a value has the wrong type or range, or two rows of one
            (query, expert, sample) disagree.
    """
    return checked(read_rows(file), str(file))


def checked(rows: Sequence[Row], where: str) -> list[Row]:
    """Rows of outcomes, checked.

    Args:
        rows: unchecked rows.
        where: their source, for errors.

    Raises:
        OutcomesError: as `read_outcomes`.
    """
    columns = set().union(*(row.keys() for row in rows))
    if missing := [name for name in (*KEYS, "quality") if name not in columns]:
        hint = ": label it first with `to-router label`" if missing == ["quality"] else ""
        raise OutcomesError(
            f"{where} lacks the column {missing[0]!r}{hint} (found {', '.join(sorted(columns))})"
        )
    kept: dict[tuple[str, str, int], Row] = {}
    texts: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        _check_row(row, f"{where}, row {number}")
        key = (row["query_id"], row["expert"], row.get("sample") or 0)
        if key in kept:
            if kept[key] != row:
                raise OutcomesError(
                    f"{where}, row {number}: query {key[0]!r} has two different outcomes of expert "
                    f"{key[1]!r}; keep one of them, or number them by `sample`"
                )
            continue
        if texts.setdefault(row["query_id"], row["query"]) != row["query"]:
            raise OutcomesError(
                f"{where}, row {number}: query_id {row['query_id']!r} has two different queries"
            )
        kept[key] = row
    return list(kept.values())


def write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as Parquet or JSONL, by the file's ending; the file appears complete or not at all.

    Raises:
        OutcomesError: a column's values are not of its type.
    """
    written = [{name: _writable(value) for name, value in row.items()} for row in rows]
    with replaced_atomically(file) as temporary:
        if file.suffix == ".parquet":
            pq.write_table(_table(written), temporary)
        else:
            lines = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in written)
            temporary.write_text("".join(lines), encoding="utf-8")


def _writable(value: Any) -> Any:
    """A value without lone surrogates, which JSON escapes allow and UTF-8 files do not."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        kind = NUMBERS.get(name) or OTHERS.get(name) or (pa.string() if name in (*KEYS, *TEXTS) else None)
        try:
            columns[name] = pa.array([row.get(name) for row in rows], type=kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise OutcomesError(f"column {name!r} cannot be written as {kind}: {error}") from error
    return pa.table(columns)


def _read_jsonl(file: Path) -> Iterable[Row]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise OutcomesError(f"{file}, line {number} is not UTF-8: {error}") from error
            except (ValueError, RecursionError) as error:  # no JSON, a number too long, too deep
                raise OutcomesError(f"{file}, line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise OutcomesError(
                    f"{file}, line {number} must be a JSON object, found {type(row).__name__}"
                )
            yield row


def _check_row(row: Row, where: str) -> None:
    for name in KEYS:
        if not isinstance(row.get(name), str) or not (row[name] or name == "query"):
            raise OutcomesError(f"{where}: {name} must be a non-empty text, found {shortened(row.get(name))}")
    quality = row.get("quality")
    if not isinstance(quality, int | float) or isinstance(quality, bool) or not 0 <= quality <= 1:
        raise OutcomesError(f"{where}: quality must be a number in [0, 1], found {shortened(quality)}")
    for name in NUMBERS:
        value = row.get(name)
        if value is None or name == "quality":
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise OutcomesError(f"{where}: {name} must be a number, found {shortened(value)}")
        try:
            number = float(value)
        except OverflowError:  # a whole number beyond every float
            number = math.inf
        if math.isnan(number):
            row[name] = None  # how data frames write "not measured"
        elif math.isinf(number) or (name in NOT_NEGATIVE and number < 0):
            least = " of at least 0" if name in NOT_NEGATIVE else ""
            raise OutcomesError(f"{where}: {name} must be a finite number{least}, found {shortened(value)}")
    for name in TEXTS:
        if row.get(name) is not None and not isinstance(row[name], str):
            raise OutcomesError(f"{where}: {name} must be a text, found {shortened(row[name])}")
    _check_sample(row, where)
    _check_logprobs(row, where)


def _check_sample(row: Row, where: str) -> None:
    sample = row.get("sample")
    if isinstance(sample, float) and math.isnan(sample):
        row["sample"] = None
    elif sample is not None and (
        not isinstance(sample, int) or isinstance(sample, bool) or not 0 <= sample <= MOST_SAMPLE
    ):
        raise OutcomesError(
            f"{where}: sample must be a whole number from 0 to {MOST_SAMPLE}, found {shortened(sample)}"
        )


def _check_logprobs(row: Row, where: str) -> None:
    values = row.get("token_logprobs")
    if values is None:
        return
    numbers = isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf
        for value in values
    )
    if not numbers or len(values) > MOST_LOGPROBS:
        raise OutcomesError(
            f"{where}: token_logprobs must be a list of at most {MOST_LOGPROBS} finite numbers, "
            f"found {shortened(values)}"
        )
