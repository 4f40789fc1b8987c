"""Folders of copies: those of processes that live stay, others are deleted."""

import os
from pathlib import Path

from deployments.expert.adapter_copies import claim


def test_folders_of_ended_processes_are_deleted(tmp_path: Path) -> None:
    lives, ended = claim(tmp_path / "shared"), claim(tmp_path / "shared")
    (ended.path / "weights").write_bytes(b"1")
    os.close(ended.lock)
    new = claim(tmp_path / "shared")

    assert set((tmp_path / "shared").iterdir()) == {lives.path, new.path}
    os.close(lives.lock)
    os.close(new.lock)


def test_a_folder_that_is_being_made_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "replica-x").mkdir()
    own = claim(tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {"replica-x", own.path.name}
    os.close(own.lock)
