"""The last valid configuration: what is kept of it, and that keeping it fails nothing."""

from pathlib import Path

import pytest

from deployments.last_good import LastGood
from router.artifact import policy_id


def policy(folder: Path, manifest: bytes) -> tuple[str, Path]:
    """A folder that has a policy's form: its id and path."""
    folder.mkdir()
    (folder / "manifest.json").write_bytes(manifest)
    (folder / "CARD.md").write_text("# Card")
    return policy_id(manifest), folder


@pytest.fixture
def last_good(tmp_path: Path) -> LastGood:
    return LastGood(lambda: tmp_path / "state")


def test_what_was_saved_last_is_loaded(last_good: LastGood) -> None:
    last_good.save({"a": 1})
    last_good.save({"a": {"b": [2]}})
    saved = last_good.load()

    assert saved is not None
    assert (saved.user_config, saved.policy_id) == ({"a": {"b": [2]}}, None)


def test_only_the_last_policy_is_kept(last_good: LastGood, tmp_path: Path) -> None:
    first, second = (policy(tmp_path / name, name.encode()) for name in ("first", "second"))
    for saved in (first, second, second):
        last_good.save({}, saved)

    assert last_good.policy_folder(first[0]) is None
    kept = last_good.policy_folder(second[0])
    assert kept is not None
    assert sorted(file.name for file in kept.iterdir()) == ["CARD.md", "manifest.json"]


def test_a_folder_that_holds_another_policy_by_now_is_not_kept(last_good: LastGood, tmp_path: Path) -> None:
    last_good.save({"a": 1}, policy(tmp_path / "first", b"first"))
    _, folder = policy(tmp_path / "second", b"second")
    last_good.save({"a": 2}, ("0123456789ab", folder))
    saved = last_good.load()

    assert saved is not None
    assert saved.user_config == {"a": 1}
    assert last_good.policy_folder("0123456789ab") is None


def test_a_process_that_is_no_replica_keeps_nothing() -> None:
    nothing = LastGood(lambda: None)
    nothing.save({"a": 1})

    assert nothing.load() is None
    assert nothing.policy_folder("0123456789ab") is None


def test_the_folder_is_below_that_of_all_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TO_ROUTER_ROOT", str(tmp_path))
    LastGood(lambda: Path("app", "Router")).save({})
    monkeypatch.setenv("TO_ROUTER_STATE", "elsewhere")
    LastGood(lambda: Path("app", "Router")).save({})

    for folder in ("var/state", "elsewhere"):
        assert (tmp_path / folder / "app" / "Router" / "user_config.json").is_file()


def test_a_value_that_is_not_json_is_not_saved(last_good: LastGood) -> None:
    last_good.save({"a": object()})

    assert last_good.load() is None


def test_the_last_rollback_is_kept_and_a_damaged_one_is_none(last_good: LastGood, tmp_path: Path) -> None:
    before = last_good.rollback()
    last_good.save_rollback("canary", "policy", "quality -10 points")
    saved = last_good.rollback()
    (tmp_path / "state" / "rollback.json").write_text("{")

    assert before is None
    assert saved is not None
    assert (saved.canary, saved.policy_id, saved.why) == ("canary", "policy", "quality -10 points")
    assert last_good.rollback() is None
