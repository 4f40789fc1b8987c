"""An actor's state in its file: written after a change, read at the next start, kept where it is broken."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments import saved_state
from deployments.saved_state import SavedState
from router.files import write_atomically


class Counts:
    """A state with a file."""

    def __init__(self, file: Path) -> None:
        self.counts: list[int] = []
        self.written = 0
        self.saved = SavedState(
            str(file),
            what="the counts",
            without="they begin at zero",
            restore=self._restore,
            snapshot=self._snapshot,
            pause_s=0.0,
        )
        self.saved.read()

    def _restore(self, data: Any) -> None:
        if not isinstance(data, list):
            raise ValueError("no list")
        self.counts = data

    def _snapshot(self) -> list[int]:
        self.written += 1
        return self.counts


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for the writer, for a bounded time."""
    for _ in range(10_000):
        if is_so():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


async def test_a_change_is_written_and_read_at_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "state" / "counts.json"
    counts = Counts(file)
    counts.counts.append(3)
    counts.saved.changed()
    await until(file.exists)

    assert Counts(file).counts == [3]


async def test_without_a_change_nothing_is_written(tmp_path: Path) -> None:
    counts = Counts(tmp_path / "counts.json")
    counts.saved.changed()
    await counts.saved.write()
    for _ in range(100):
        await asyncio.sleep(0)

    assert counts.written == 1


async def test_an_older_state_never_overtakes_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, go_on, begun = tmp_path / "counts.json", threading.Event(), asyncio.Event()
    loop, counts = asyncio.get_running_loop(), Counts(file)

    def slow_at_first(path: Path, content: bytes, *, durable: bool) -> None:
        if content == b"[1]":
            loop.call_soon_threadsafe(begun.set)
            go_on.wait(30)
        write_atomically(path, content, durable=durable)

    monkeypatch.setattr(saved_state, "write_atomically", slow_at_first)
    counts.counts = [1]
    older = asyncio.create_task(counts.saved.write())
    await begun.wait()
    counts.counts = [1, 2]
    newer = asyncio.create_task(counts.saved.write())
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(older, newer)

    assert json.loads(file.read_bytes()) == [1, 2]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff"])
def test_a_broken_file_is_kept_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    caplog.set_level(logging.ERROR)
    file = tmp_path / "counts.json"
    file.write_bytes(content)

    assert Counts(file).counts == []
    assert "the counts in" in caplog.text
    assert "they begin at zero; the file is kept as counts.json.broken" in caplog.text
    assert (tmp_path / "counts.json.broken").read_bytes() == content


async def test_a_disk_that_is_full_is_logged_and_not_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "folder").write_text("a file")
    counts = Counts(tmp_path / "folder" / "counts.json")
    await counts.saved.write()

    assert "the counts not written" in caplog.text


async def test_a_write_that_failed_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.write_text("a file")
    counts = Counts(folder / "counts.json")
    counts.counts.append(3)
    counts.saved.changed()
    await until(lambda: counts.written > 0)
    folder.unlink()
    await until((folder / "counts.json").exists)

    assert Counts(folder / "counts.json").counts == [3]


async def test_a_state_that_cannot_be_made_ends_no_later_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "counts.json"
    counts = Counts(file)
    counts.counts = [2**80]  # no JSON number of orjson
    counts.saved.changed()
    await until(lambda: counts.written > 0)
    counts.counts = [3]
    counts.saved.changed()
    await until(file.exists)

    assert "the counts not written" in caplog.text
    assert Counts(file).counts == [3]


def test_the_file_is_json(tmp_path: Path) -> None:
    counts = Counts(tmp_path / "counts.json")
    counts.counts = [1, 2]
    asyncio.run(counts.saved.write())

    assert json.loads((tmp_path / "counts.json").read_bytes()) == [1, 2]
