"""Copies of adapters: made off the event loop, in time or not at all."""

import asyncio
import threading
from pathlib import Path

import pytest

from deployments.expert.adapter_folder import AdapterRejectedError
from deployments.expert.adapter_preparation import Preparation, Prepared

HUB = "owner/adapter"


class Copies:
    """Makes a folder for each source; the one of the hub when `hang` is set."""

    def __init__(self, folder: Path, hang: threading.Event) -> None:
        self.folder, self.hang = folder, hang
        self.loop, self.begun = asyncio.get_running_loop(), asyncio.Event()

    def prepare(self, source: str) -> Prepared:
        if source == HUB:
            self.loop.call_soon_threadsafe(self.begun.set)
            self.hang.wait(30)
        copy = self.folder / source.replace("/", "-")
        copy.mkdir()
        return Prepared(copy, "0")

    def left(self) -> list[str]:
        return [copy.name for copy in self.folder.iterdir()]


async def test_a_folder_waits_for_no_download(tmp_path: Path, hang: threading.Event) -> None:
    copies = Copies(tmp_path, hang)
    preparation = Preparation(copies.prepare, within_s=30)
    download = asyncio.create_task(preparation.run(HUB))
    await copies.begun.wait()
    await preparation.run("local")
    before = copies.left()
    hang.set()
    await download

    assert before == ["local"]


async def test_a_copy_that_is_made_too_late_is_deleted(tmp_path: Path, hang: threading.Event) -> None:
    copies = Copies(tmp_path, hang)
    preparation = Preparation(copies.prepare, within_s=30)
    download = asyncio.create_task(preparation.run(HUB))
    await copies.begun.wait()
    download.cancel()
    await asyncio.wait({download})
    hang.set()
    await preparation.run("owner/next")  # in the same thread, after it

    assert copies.left() == ["owner-next"]


async def test_an_adapter_that_is_not_read_in_time_is_rejected(tmp_path: Path, hang: threading.Event) -> None:
    preparation = Preparation(Copies(tmp_path, hang).prepare, within_s=0.02)

    with pytest.raises(AdapterRejectedError, match=r"owner/adapter was not read in 0\.02 s"):
        await preparation.run(HUB)
    hang.set()
