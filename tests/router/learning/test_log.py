"""Files of the decision log: read in order, deleted by key and by request."""

from pathlib import Path

import pytest

from router.errors import InputError
from router.learning.log import delete_records, log_files, read_folders, read_records

LINES = (
    b'{"type":"decision","request_id":"1","key":"a"}\n',
    b'{"type":"decision","request_id":"2","key":"b"}\n',
    b'{"type":"decision","request_id":"3","key":"a"}\n',
)


def folder_of(path: Path) -> Path:
    (path / "decisions-1.jsonl").write_bytes(b"".join(LINES))
    (path / "ratings-1.jsonl").write_bytes(b'{"type":"feedback","request_id":"2","quality":1.0,"key":"b"}\n')
    (path / "judgements-1.jsonl").write_bytes(b'{"type":"judgement","request_id":"1","quality":0.5}\n')
    return path


def ids(folder: Path) -> list[str]:
    return [record.request_id for record in read_folders([folder])]


def test_all_kinds_of_files_are_read(tmp_path: Path) -> None:
    assert ids(folder_of(tmp_path)) == ["1", "2", "3", "2", "1"]


def test_a_keys_records_are_deleted_with_their_judgements(tmp_path: Path) -> None:
    assert delete_records(folder_of(tmp_path), key="a") == 3

    assert ids(tmp_path) == ["2", "2"]
    assert [file.name for file in log_files(tmp_path)] == ["decisions-1.jsonl", "ratings-1.jsonl"]


def test_a_requests_records_are_deleted_and_no_others(tmp_path: Path) -> None:
    assert delete_records(folder_of(tmp_path), request_id="2") == 2

    assert ids(tmp_path) == ["1", "3", "1"]


def test_lines_that_are_no_records_survive_a_deletion(tmp_path: Path) -> None:
    (tmp_path / "decisions-1.jsonl").write_bytes(b"half a li\n" + b"".join(LINES))

    assert delete_records(tmp_path, key="b") == 1

    assert (tmp_path / "decisions-1.jsonl").read_bytes() == b"half a li\n" + LINES[0] + LINES[2]


def test_invalid_lines_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "decisions-1.jsonl"
    file.write_bytes(b'not json\n{"type":"decision","request_id":NaN}\n\n' + LINES[0])
    invalid: list[int] = []

    assert [record.request_id for record in read_records(file, lambda: invalid.append(1))] == ["1"]
    assert len(invalid) == 2


def test_a_folder_without_log_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no decision log"):
        read_folders([tmp_path])
    with pytest.raises(InputError, match="has no decision log"):
        delete_records(tmp_path, key="a")
