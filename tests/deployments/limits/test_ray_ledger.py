"""The ledger's actor as a plain object: its file of counts, and its name."""

import logging
from pathlib import Path

import pytest

from deployments.limits.ray_ledger import NAME, LedgerActor
from deployments.named_actor import actor_name


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"version": 1}', b"\xff", b"null"])
def test_broken_counts_are_named_kept_and_do_not_stop_the_ledger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    caplog.set_level(logging.ERROR)
    file = tmp_path / "keys.counts.json"
    file.write_bytes(content)
    LedgerActor(str(file))

    assert "budgets and windows begin at zero" in caplog.text
    assert (tmp_path / "keys.counts.json.broken").read_bytes() == content
    assert not file.exists()


def test_each_file_of_counts_has_an_actor_of_its_own() -> None:
    assert len({actor_name(NAME, "a"), actor_name(NAME, "b"), actor_name(NAME, "a")}) == 2
