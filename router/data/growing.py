"""JSONL files that a run appends to and a later run goes on from: what they hold; a cut line is repaired.

A file is changed only once every complete line of it was found to be ours.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from router.errors import InputError

Kept = TypeVar("Kept")


def read_growing(file: Path, read: Callable[[Any], Kept], *, begins: bytes, what: str) -> list[Kept]:
    """What each line holds; a last line that was cut off in the middle is taken off the file.

    Args:
        read: a line's JSON → what is wanted of it; KeyError, TypeError or ValueError when it is not ours.
        begins: how every line of ours begins.
        what: what the file should hold, for the error.

    Raises:
        InputError: the file holds something else; it is left as it was.
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
        f"{file} holds no {what}: line {number} is none. "
        "It is left as it was: name another file, or remove this one"
    )
