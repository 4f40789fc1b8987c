"""Recorded pools: which experts are excluded, and one line for a folder without the outcomes."""

import sys
from pathlib import Path

import pytest

from experiments import recorded_pools
from experiments.recorded_pools import POOLS, excluded
from router.errors import InputError

NAMES = ("Gemini-2.0-flash", "qwen2.5-72b", "o1-mini-2024")


@pytest.mark.parametrize(
    ("name", "missing"),
    [("mmlupro10", []), ("open_pool", ["Gemini-2.0-flash"]), ("zeroeval28", ["o1-mini-2024"])],
)
def test_a_pool_excludes_experts_by_a_part_of_their_name(name: str, missing: list[str]) -> None:
    assert excluded(POOLS[name], NAMES) == missing


def test_a_folder_without_the_outcomes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["recorded_pools", "open_pool", "--data", str(tmp_path)])

    with pytest.raises(InputError, match=r"mmlupro10\.parquet"):
        recorded_pools.main()
