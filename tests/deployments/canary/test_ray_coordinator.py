"""The coordinator's actor as a plain object: its file."""

import json
import logging
from pathlib import Path

import pytest

from deployments.canary.messages import CanaryCall
from deployments.canary.ray_coordinator import CoordinatorActor
from router.learning.canary import ArmSums
from router.learning.sequential import Sums

WORSE = {"canary": ArmSums(Sums(100, 0.0, 0.0)), "control": ArmSums(Sums(100, 100.0, 100.0))}


async def test_a_rollback_is_on_disk_before_it_is_returned(tmp_path: Path) -> None:
    file = tmp_path / "state" / "canaries.json"
    found = await CoordinatorActor(str(file)).sync(CanaryCall("a", {"c": WORSE}, ("c",)))

    saved = json.loads(file.read_bytes())["canaries"]["c"]["rolled_back"]
    assert saved == found["c"].rolled_back
    assert saved is not None


async def test_a_new_actor_has_the_state_of_the_one_before(tmp_path: Path) -> None:
    file = str(tmp_path / "canaries.json")
    before = await CoordinatorActor(file).sync(CanaryCall("a", {"c": WORSE}, ("c",)))

    assert await CoordinatorActor(file).sync(CanaryCall("", {}, ("c",))) == before


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"version": 1}'])
async def test_a_broken_file_is_kept_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    caplog.set_level(logging.ERROR)
    file = tmp_path / "canaries.json"
    file.write_bytes(content)
    found = await CoordinatorActor(str(file)).sync(CanaryCall("", {}, ("c",)))

    assert found["c"].rolled_back is None
    assert "replicas report again" in caplog.text
    assert (tmp_path / "canaries.json.broken").read_bytes() == content
