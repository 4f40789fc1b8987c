"""A folder for one replica's copies of adapters, in a folder that many replicas share.

A replica holds a lock on its own as long as its process lives; those of ended replicas are deleted by the
next one that starts, so that the disk does not fill.
"""

import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

LOCK = "lock"


@dataclass(frozen=True, slots=True)
class OwnFolder:
    """A folder that is this process's alone."""

    path: Path
    lock: int
    """Descriptor of its lock, held until it is closed or the process ends."""


def claim(shared: Path) -> OwnFolder:
    """Make a folder of this process's own, and delete those of processes that ended.

    Raises:
        OSError: it cannot be made.
    """
    shared.mkdir(parents=True, exist_ok=True)
    for folder in shared.iterdir():
        _delete_if_abandoned(folder)
    own = Path(tempfile.mkdtemp(prefix="replica-", dir=shared))
    # Locked before it has its name: without a lock of that name no other process deletes the folder.
    unnamed = own / f"{LOCK}.new"
    lock = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    unnamed.rename(own / LOCK)
    return OwnFolder(own, lock)


def _delete_if_abandoned(folder: Path) -> None:
    try:
        with (folder / LOCK).open("r+", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return  # its process lives, or another one deletes it now
