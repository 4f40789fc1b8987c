"""An incomplete last line is repaired, and no other file is changed."""

from pathlib import Path

import pytest

from router.data.growing import read_growing
from router.errors import InputError


def read(file: Path) -> list[str]:
    return read_growing(file, lambda entry: entry["key"], begins=b'{"key": "', what="keys")


@pytest.mark.parametrize(
    ("data", "found", "left"),
    [
        (b"", [], b""),
        (b'{"key": "a"}\n', ["a"], b'{"key": "a"}\n'),
        (b'{"key": "a"}\n\n{"ke', ["a"], b'{"key": "a"}\n\n'),
        ('{"key": "a"}\n{"key": "é'.encode()[:-1], ["a"], b'{"key": "a"}\n'),
        (b'{"key": "a', [], b""),
        (b"{", [], b""),
        (b'{"key": "a"}', ["a"], b'{"key": "a"}\n'),
    ],
)
def test_a_cut_line_is_taken_off_and_the_rest_is_kept(
    tmp_path: Path, data: bytes, found: list[str], left: bytes
) -> None:
    (tmp_path / "f").write_bytes(data)

    assert read(tmp_path / "f") == found
    assert (tmp_path / "f").read_bytes() == left


@pytest.mark.parametrize(
    "data",
    [
        b"my thesis, all on one line",
        b"# Notes\nand more",
        b'{"key": "a"}\n{"other": 1}\nand more',
        b'{"other": "whole but for its newline"}',
        b"12",
        b'"key"\n',
        b'{"key": ' + b"9" * 5000 + b"}\n",
        b"\xff\xfe\n",
    ],
)
def test_a_file_with_something_else_is_rejected_and_not_changed(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(InputError, match=r"is not a file with keys: line .* It was not changed"):
        read(tmp_path / "f")

    assert (tmp_path / "f").read_bytes() == data
