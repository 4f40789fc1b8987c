"""Parquet files as rows of plain values: text, numbers, truth values, and lists and objects of those.

Other programs write decimals, durations, dates, bytes and identifiers; each is read as the text or number
that it stands for, because outcomes have no other kinds.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from router.errors import OutcomesError

NANOSECONDS = 1_000_000_000


def read_parquet(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file.

    Durations are seconds; dates and times are text, as ISO 8601 writes them; bytes are UTF-8 text.

    Raises:
        OutcomesError: not a Parquet file, two columns of one name, or values without a plain form.
    """
    try:
        # Not `read_table`, which adds a column for each folder whose name has a `=`.
        with pq.ParquetFile(file) as opened:
            table = opened.read()
    except (pa.ArrowException, OSError) as error:
        raise OutcomesError(f"{file} is not a Parquet file: {error}") from error
    if doubled := [name for name, count in Counter(table.column_names).items() if count > 1]:
        raise OutcomesError(f"{file} has the column {doubled[0]!r} twice: keep one of them")
    columns = {name: _values(table.column(name), f"{file}: column {name!r}") for name in table.column_names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(column: pa.ChunkedArray, where: str) -> list[Any]:
    kind = column.type
    try:
        if isinstance(kind, pa.BaseExtensionType):  # such as UUIDs
            return [value if value is None else str(value) for value in column.to_pylist()]
        values: list[Any] = _plain(column).to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise OutcomesError(
            f"{where} holds {kind} values that are neither text nor numbers: {error}"
        ) from error
    return values


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column whose values are plain, where its kind has them at the top level."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    if pa.types.is_duration(kind):
        nanoseconds = column.cast(pa.duration("ns")).cast(pa.int64())
        return pa.compute.divide(nanoseconds.cast(pa.float64(), safe=False), float(NANOSECONDS))
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        return column.cast(pa.float64())
    if pa.types.is_temporal(kind) or _is_bytes(kind):
        return column.cast(pa.string())
    return column


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in tests)
