"""Keys: made, kept as digests, distinguished from wrong ones, revoked while the system runs."""

import argparse
import inspect
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from deployments.cli.keys import add_command
from deployments.contracts.errors import NotAuthenticated, Unavailable
from deployments.limits import keys
from deployments.limits.keys import KeyFile, KeyFileError, KeyLimits, KeyRing, new_key, read_keys, write_keys


def main(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    options = parser.parse_args(["keys", *arguments])
    code: int = options.run(options)
    return code


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {key}".encode())]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def ring_with(path: Path, *records: keys.KeyRecord) -> KeyRing:
    write_keys(path, KeyFile(keys=list(records)))
    ring = KeyRing(path)
    ring.refresh()
    return ring


def test_a_key_admits_its_owner_with_its_rights(path: Path) -> None:
    key, record = new_key(
        "team", experts=["small"], preset="auto-cheap", limits=KeyLimits(requests_per_minute=5)
    )
    caller = ring_with(path, record).authenticate(bearer(key))

    assert caller.id == record.id
    assert caller.experts == {"small"}
    assert caller.preset == "auto-cheap"
    assert caller.limits.requests_per_minute == 5


@pytest.mark.parametrize(("own", "in_effect"), [(None, 4), (9, 9)])
def test_a_default_bounds_a_key_without_a_bound_of_its_own(
    path: Path, own: int | None, in_effect: int
) -> None:
    key, record = new_key("team", limits=KeyLimits(max_concurrent=own, requests_per_minute=5))
    write_keys(path, KeyFile(keys=[record]))
    ring = KeyRing(path, max_concurrent=4)
    ring.refresh()

    assert ring.authenticate(bearer(key)).limits == KeyLimits(max_concurrent=in_effect, requests_per_minute=5)


def test_anthropics_header_is_taken_too(path: Path) -> None:
    key, record = new_key("team")

    assert ring_with(path, record).authenticate([(b"x-api-key", key.encode())]).id == record.id


@pytest.mark.parametrize("spoil", ["", "tor", "tor-", "tor--", "x", "other", "tail", "head", "\udcff"])
def test_a_wrong_key_is_rejected(path: Path, spoil: str) -> None:
    key, record = new_key("team")
    ring = ring_with(path, record)
    wrong = {"tail": key + "x", "head": "x" + key, "other": new_key("x")[0]}.get(spoil, spoil)

    with pytest.raises(NotAuthenticated):
        ring.authenticate([(b"authorization", b"Bearer " + wrong.encode("utf-8", "surrogateescape"))])


def test_a_missing_key_is_rejected(path: Path) -> None:
    with pytest.raises(NotAuthenticated):
        ring_with(path).authenticate([(b"authorization", b"Basic abc")])


def test_neither_file_nor_record_holds_the_secret(path: Path) -> None:
    key, record = new_key("team")
    ring_with(path, record)

    assert key.split("-", 2)[2] not in path.read_text()
    assert new_key("team")[1].salt != record.salt


def test_digests_are_compared_in_constant_time_for_unknown_ids_too() -> None:
    source = inspect.getsource(KeyRing.authenticate)

    assert "hmac.compare_digest(digest_of(secret, salt), digest)" in source
    assert " == digest" not in source


def test_a_revoked_key_stops_with_the_next_look_at_the_file(path: Path) -> None:
    key, record = new_key("team")
    ring = ring_with(path, record)
    assert main("revoke", key, "--file", str(path)) == 0
    ring.refresh()

    with pytest.raises(NotAuthenticated):
        ring.authenticate(bearer(key))


def test_an_invalid_file_leaves_the_last_keys_in_effect(path: Path) -> None:
    key, record = new_key("team")
    ring = ring_with(path, record)
    path.write_text("{")
    ring.refresh()

    assert ring.authenticate(bearer(key)).id == record.id
    assert ring.error is not None


def test_without_any_valid_file_no_request_is_admitted(path: Path) -> None:
    ring = KeyRing(path)
    ring.refresh()

    with pytest.raises(Unavailable):
        ring.authenticate(bearer(new_key("x")[0]))
    assert "to-router keys add" in (ring.error or "")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"version": 2}', '{"keys": [{"id": "x"}]}', '{"kyes": []}', "\x00"]
)
def test_an_invalid_file_is_reported_in_one_line(path: Path, content: str) -> None:
    path.write_text(content)

    with pytest.raises(KeyFileError) as caught:
        read_keys(path)
    assert str(path) in str(caught.value)


def test_a_key_file_of_an_earlier_version_still_loads() -> None:
    ring = KeyRing(Path(__file__).parent / "fixtures" / "keys.json")
    ring.refresh()
    caller = ring.authenticate(bearer("tor-0123456789ab-secret-of-the-fixture"))

    assert (caller.id, caller.experts, caller.preset) == ("0123456789ab", {"small"}, "auto-cheap")
    assert caller.limits == KeyLimits(requests_per_minute=9, usd_per_day=2.5)
    with pytest.raises(NotAuthenticated):
        ring.authenticate(bearer("tor-ba9876543210-x"))


def test_the_command_adds_lists_and_revokes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> Any:
        assert main(*arguments, "--file", str(path), "--json") == 0
        return json.loads(capsys.readouterr().out)

    added = run("add", "team a", "--experts", "small,large", "--usd-per-day", "2.5", "--batch")
    listed = run("list")["keys"]
    run("revoke", added["id"])

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [record["id"] for record in listed] == [added["id"]]
    assert listed[0]["limits"] == {"usd_per_day": 2.5}
    assert listed[0]["batch"] is True
    assert "digest" not in json.dumps(listed)
    assert run("list")["keys"][0]["revoked"]
    ring = KeyRing(path)
    ring.refresh()
    with pytest.raises(NotAuthenticated):
        ring.authenticate(bearer(added["key"]))


@pytest.mark.parametrize(
    "arguments", [["revoke", "0123456789ab"], ["add", "x", "--usd-per-day", "-1"], ["add", ""]]
)
def test_a_bad_command_says_so_and_changes_nothing(path: Path, arguments: list[str]) -> None:
    write_keys(path, KeyFile())
    before = path.read_text()

    with pytest.raises(KeyFileError):
        main(*arguments, "--file", str(path))
    assert path.read_text() == before


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "a\u2028b", "\u202egpj"])
def test_names_that_steer_a_terminal_are_rejected_and_escaped(
    path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for arguments in ((name,), ("a", "--experts", f"b,{name}"), ("a", "--preset", name)):
        with pytest.raises(KeyFileError, match="control character"):
            main("add", *arguments, "--file", str(path))
    write_keys(path, KeyFile(keys=[new_key(name)[1]]))
    main("list", "--file", str(path))

    assert capsys.readouterr().out.removesuffix("\n").isprintable()


@pytest.mark.parametrize("budget", ["inf", "nan", "0", "-1"])
def test_a_budget_is_a_number_above_zero(path: Path, budget: str) -> None:
    with pytest.raises(KeyFileError, match="usd_per_day"):
        main("add", "a", "--usd-per-day", budget, "--file", str(path))
