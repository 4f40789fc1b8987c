"""Write files and folders so that a reader sees all of the new content or none of it.

Each one is made under a temporary name beside its target and renamed when it is complete. Knows
nothing of what is written.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(file: Path, data: bytes | str, *, mode: int = 0o666, durable: bool = False) -> None:
    """Replace a file as a whole; its folder is created where it is missing.

    Args:
        file: the target; an existing one is replaced.
        data: the new content; text is encoded as UTF-8.
        mode: permissions, less the process's umask.
        durable: flush file and folder to disk, so that the new content survives a power failure.

    Raises:
        OSError: the file cannot be written; an existing one is unchanged.
    """
    with replaced_atomically(file, mode=mode, durable=durable) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def replaced_atomically(file: Path, *, mode: int = 0o666, durable: bool = False) -> Iterator[Path]:
    """A temporary file to write to, which replaces `file` on exit; on an error it is removed.

    For writers that take a path; arguments and errors as for `write_atomically`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(file)
    # Opened exclusively, so that it is ours, and with the mode, so that it is never readable by more.
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield temporary
        if durable:
            _flush(temporary)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _flush(file.parent)


@contextmanager
def new_folder_atomically(folder: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `folder` on exit; on an error it is removed.

    Args:
        folder: the target, which must not exist.
        durable: flush files and folders to disk, so that the content survives a power failure.

    Raises:
        FileExistsError: something exists at `folder`.
        OSError: the folder cannot be written.
    """
    require_absent(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(folder)
    temporary.mkdir()
    try:
        yield temporary
        if durable:
            for file in temporary.iterdir():
                _flush(file)
            _flush(temporary)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if durable:
        _flush(folder.parent)


@contextmanager
def completed_files(folder: Path) -> Iterator[Path]:
    """A temporary folder for several files, which move to `folder` on exit; on an error none does.

    Files in `folder` of the same names are replaced, others stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = _beside(folder)
    temporary.mkdir()
    try:
        yield temporary
        for file in sorted(temporary.iterdir()):
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_absent(folder: Path) -> None:
    """Check that a new folder can take this name.

    Raises:
        FileExistsError: something exists at `folder`.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} already exists: name a new folder, or remove it first")


def _beside(target: Path) -> Path:
    """An unused name on the target's file system, hidden from a listing."""
    return target.parent / f".{target.name}-{secrets.token_hex(6)}"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
