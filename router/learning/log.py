"""Files of the decision log: their names, their records, and the deletion of records.

The deployments write decisions and ratings, each in files of their own; `to-router learn` adds judgements.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from router.errors import InputError
from router.files import replaced_atomically
from router.learning.record import NewerRecordError, Record, from_json

PREFIX, RATINGS, JUDGEMENTS, SHADOWS = "decisions-", "ratings-", "judgements-", "shadow-"
SUFFIX = ".jsonl"
WORK = "judging"
"""Folder in that of a log, with answers and grades of a sample while it is judged."""


def log_files(folder: Path) -> list[Path]:
    """The log's files: those of decisions, of ratings, of judgements, of shadow scores, each oldest first."""
    return [file for prefix in (PREFIX, RATINGS, JUDGEMENTS, SHADOWS) for file in files_of(folder, prefix)]


def files_of(folder: Path, prefix: str) -> list[Path]:
    """The log's files of one kind, oldest first."""
    return sorted(folder.glob(f"{prefix}*{SUFFIX}"))


def read_records(file: Path, count_invalid: Callable[[], None] = lambda: None) -> Iterator[Record]:
    """A file's records; a line that is no valid record (the last of a killed replica) is left out.

    Args:
        file: one of the log's files.
        count_invalid: called for each line that is left out.

    Raises:
        NewerRecordError: a later version wrote a record.
        OSError: the file cannot be read.
    """
    with file.open("rb") as lines:
        for line in lines:
            data = _object(line)
            record = None if data is None else from_json(data)
            if record is not None:
                yield record
            elif line.strip():
                count_invalid()


def read_folders(folders: list[Path], count_invalid: Callable[[], None] = lambda: None) -> list[Record]:
    """All records of several logs.

    Raises:
        InputError: a folder holds no log, or a later version wrote a record.
        OSError: a file cannot be read.
    """
    records: list[Record] = []
    for folder in folders:
        files = log_files(folder)
        if not files:
            raise InputError(f"{folder} has no decision log: name the folder of `log.folder`")
        try:
            records += [record for file in files for record in read_records(file, count_invalid)]
        except NewerRecordError as error:
            raise InputError(str(error)) from error
    return records


def delete_records(folder: Path, *, key: str | None = None, request_id: str | None = None) -> int:
    """Delete the records of one key, or of one request; returns their number.

    The records of a key are its requests and ratings, and what was judged or scored of these requests.
    Each file is replaced as a whole; one that becomes empty is removed. Answers and grades that judging
    keeps are deleted as a whole: a later run makes them again.

    Raises:
        InputError: the folder holds no log.
        OSError: a file cannot be read or written; files before it are done.
    """
    files = log_files(folder)
    if not files:
        raise InputError(f"{folder} has no decision log: name the folder of `log.folder`")
    requests = {request_id} if request_id is not None else set()
    if key is not None:
        for file in files:
            requests |= {
                data["request_id"]
                for data in map(_object, file.read_bytes().splitlines())
                if data is not None and data.get("key") == key and isinstance(data.get("request_id"), str)
            }
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return sum(_delete_from(file, requests, key) for file in files)


def _delete_from(file: Path, requests: set[str], key: str | None) -> int:
    lines = file.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not _concerns(_object(line), requests, key)]
    if len(kept) == len(lines):
        return 0
    if not kept:
        file.unlink(missing_ok=True)
        return len(lines)
    with replaced_atomically(file, mode=0o600, durable=True) as temporary:
        temporary.write_bytes(b"".join(kept))
    return len(lines) - len(kept)


def _concerns(data: dict[str, Any] | None, requests: set[str], key: str | None) -> bool:
    if data is None:
        return False
    return data.get("request_id") in requests or (key is not None and data.get("key") == key)


def _object(line: bytes) -> dict[str, Any] | None:
    """A line as a JSON object; `None` for anything else."""
    try:
        data = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
