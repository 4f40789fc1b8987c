"""`to-router keys add | list | revoke`: the file of API keys, replaced as a whole and under a lock."""

import argparse
import contextlib
import fcntl
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deployments.limits.keys import (
    KeyFile,
    KeyFileError,
    KeyLimits,
    KeyRecord,
    new_key,
    read_keys,
    write_keys,
)
from router.validation import explain

DEFAULT_FILE = "var/keys.json"


def add_command(commands: Any) -> None:
    """Register `to-router keys`."""
    keys = commands.add_parser("keys", help="create, list and revoke the API keys of the endpoint")
    verbs = keys.add_subparsers(dest="verb", required=True, metavar="VERB")
    add = verbs.add_parser("add", help="create a key; it is shown once, and only its digest is kept")
    add.add_argument("name", help="a name for people, such as the owner's")
    add.add_argument("--experts", help="the experts it may use, A,B; default: all")
    add.add_argument("--preset", help="the preset that `auto` selects with it")
    add.add_argument("--requests-per-minute", type=int, help="limit of requests")
    add.add_argument("--tokens-per-minute", type=int, help="limit of prompt and completion tokens")
    add.add_argument("--max-concurrent", type=int, help="requests in flight at once")
    add.add_argument("--usd-per-day", type=float, help="budget in US dollars per UTC day")
    add.add_argument("--batch", action="store_true", help="its requests wait behind interactive ones")
    add.set_defaults(run=_add)
    show = verbs.add_parser("list", help="list the keys of the file, without their secrets")
    show.set_defaults(run=_list)
    revoke = verbs.add_parser("revoke", help="reject a key from now on")
    revoke.add_argument("id", help="the twelve digits after `tor-`, or the whole key")
    revoke.set_defaults(run=_revoke)
    for verb in (add, show, revoke):
        verb.add_argument(
            "--file", type=Path, default=Path(DEFAULT_FILE), help="the key file; default: %(default)s"
        )
        verb.add_argument("--json", action="store_true", help="print JSON")


def _add(options: argparse.Namespace) -> int:
    experts = None if options.experts is None else [*filter(None, options.experts.split(","))]
    for name in (options.name, options.preset or "", *(experts or ())):
        if not name.isprintable():
            raise KeyFileError(f"a name has a line break or another control character: {ascii(name)[:80]}")
    try:
        limits = KeyLimits(
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
            max_concurrent=options.max_concurrent,
            usd_per_day=options.usd_per_day,
        )
        key, record = new_key(
            options.name, experts=experts, preset=options.preset, limits=limits, batch=options.batch
        )
    except ValidationError as error:
        raise KeyFileError(explain(error)) from None
    with _locked(options.file):
        file = read_keys(options.file) if options.file.exists() else KeyFile()
        write_keys(options.file, file.model_copy(update={"keys": [*file.keys, record]}))
    if options.json:
        _print(json.dumps({"key": key, **_shown(record)}))
    else:
        _print(key)
        sys.stderr.write(f"shown once; {options.file} holds its digest as {record.id}\n")
    return 0


def _list(options: argparse.Namespace) -> int:
    records = [_shown(record) for record in read_keys(options.file).keys]
    if options.json:
        _print(json.dumps({"keys": records}, indent=2))
        return 0
    for record in records:
        line = ", ".join(f"{name} {value}" for name, value in record.items() if value not in (None, {}))
        _print(_escaped(line))
    return 0


def _revoke(options: argparse.Namespace) -> int:
    key_id = options.id.removeprefix("tor-").partition("-")[0]
    with _locked(options.file):
        file = read_keys(options.file)
        if key_id not in {record.id for record in file.keys}:
            known = ", ".join(record.id for record in file.keys) or "none"
            raise KeyFileError(f"{options.file} has no key {key_id[:32]!r}; it has: {known}")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        records = [
            record.model_copy(update={"revoked": record.revoked or now}) if record.id == key_id else record
            for record in file.keys
        ]
        write_keys(options.file, file.model_copy(update={"keys": records}))
    _print(json.dumps({"revoked": key_id}) if options.json else f"{key_id} is revoked")
    return 0


def _shown(record: KeyRecord) -> dict[str, Any]:
    """A key without its secrets."""
    return record.model_dump(exclude={"salt", "digest"}, exclude_none=True)


def _escaped(line: str) -> str:
    """A line without characters that control a terminal: a key file may have been written by hand."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the file, so that two commands change it one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
