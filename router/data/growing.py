"""JSONL files that one run appends to and a later run continues: read them, and repair an incomplete line.

A file is changed only after every complete line of it was read as expected.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from router.errors import InputError

Kept = TypeVar("Kept")


def read_growing(file: Path, read: Callable[[Any], Kept], *, begins: bytes, what: str) -> list[Kept]:
    """The value of each line; an incomplete last line is removed from the file.

    Args:
        file: the JSONL file; a missing one is empty.
        read: a line's JSON → its value; raises KeyError, TypeError or ValueError for another kind of line.
        begins: the first bytes of every line of this kind.
        what: the expected contents, for the error.

    Raises:
        InputError: the file holds something else; it is not changed.
    """
    if not file.is_file():
        return []
    data = file.read_bytes()
    *lines, last = data.split(b"\n")
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(read(json.loads(line.decode("utf-8"))))
            except (KeyError, TypeError, ValueError, RecursionError) as error:
                raise _not_ours(file, number, what) from error
    if not last:
        return found
    try:
        whole = json.loads(last.decode("utf-8"))
    except (ValueError, RecursionError):
        if not found and not last.startswith(begins) and not begins.startswith(last):
            raise _not_ours(file, len(lines) + 1, what) from None
        os.truncate(file, len(data) - len(last))
        return found
    try:
        found.append(read(whole))
    except (KeyError, TypeError, ValueError) as error:
        raise _not_ours(file, len(lines) + 1, what) from error
    with file.open("ab") as opened:  # only its newline was missing
        opened.write(b"\n")
    return found


def _not_ours(file: Path, number: int, what: str) -> InputError:
    return InputError(
        f"{file} is not a file with {what}: line {number} is something else. "
        "It was not changed: name another file, or remove this one"
    )
