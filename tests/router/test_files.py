"""Files and folders appear complete or not at all."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from router.files import completed_files, new_folder_atomically, replaced_atomically, write_atomically


class Interrupted(BaseException):
    """Like a KeyboardInterrupt: no `Exception`."""


def interrupted(writing: AbstractContextManager[Path]) -> None:
    with writing as temporary:
        ((temporary / "a") if temporary.is_dir() else temporary).write_bytes(b"half")
        raise Interrupted


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "folder" / "a.txt"
    write_atomically(file, "old", durable=durable)
    write_atomically(file, "é", durable=durable)

    assert file.read_bytes() == "é".encode()
    assert list(file.parent.iterdir()) == [file]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_atomically(file, b"old")
    with pytest.raises(Interrupted):
        interrupted(replaced_atomically(file))

    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_mode_is_that_of_the_argument(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    with replaced_atomically(file, mode=0o600) as temporary:
        before = temporary.stat().st_mode & 0o777
        temporary.write_bytes(b"x")

    assert before == 0o600  # never readable by others, not even while it is written
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_umask_limits_a_files_mode(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"")
    finally:
        os.umask(umask)

    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("durable", [False, True])
def test_a_new_folder_appears_complete(tmp_path: Path, durable: bool) -> None:
    with new_folder_atomically(tmp_path / "new", durable=durable) as making:
        (making / "a").write_bytes(b"1")
        assert not (tmp_path / "new").exists()

    assert [file.name for file in tmp_path.rglob("*")] == ["new", "a"]


def test_a_new_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        interrupted(new_folder_atomically(tmp_path / "new"))

    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(FileExistsError, match="already exists"):
        interrupted(new_folder_atomically(tmp_path / "new"))


def test_files_move_into_a_folder_together(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_bytes(b"kept")
    (tmp_path / "out" / "a").write_bytes(b"old")
    with completed_files(tmp_path / "out") as making:
        (making / "a").write_bytes(b"new")
        (making / "b").write_bytes(b"new")
    with pytest.raises(Interrupted):
        interrupted(completed_files(tmp_path / "out"))

    contents = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert contents == {"kept": b"kept", "a": b"new", "b": b"new"}
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
