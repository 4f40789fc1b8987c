"""`to-router keys add | list | revoke`: the file of API keys, changed as a whole and under a lock."""

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
from deployments.settings import explain

DEFAULT_FILE = "var/keys.json"


def add_command(commands: Any) -> None:
    """Register `to-router keys`."""
    keys = commands.add_parser("keys", help="make, list and revoke the API keys of the endpoint")
    verbs = keys.add_subparsers(dest="verb", required=True, metavar="VERB")
    add = verbs.add_parser("add", help="make a key; it is shown once, and only its digest is kept")
    add.add_argument("name", help="whose it is, for people")
    add.add_argument("--experts", help="the experts it may use, A,B; left out, all")
    add.add_argument("--preset", help="the preset that `auto` stands for with it")
    add.add_argument("--requests-per-minute", type=int)
    add.add_argument("--tokens-per-minute", type=int)
    add.add_argument("--max-concurrent", type=int, help="requests in flight at once")
    add.add_argument("--usd-per-day", type=float, help="budget in US dollars per day of UTC")
    add.set_defaults(run=_add)
    show = verbs.add_parser("list", help="the keys of the file, without their secrets")
    show.set_defaults(run=_list)
    revoke = verbs.add_parser("revoke", help="refuse a key from now on")
    revoke.add_argument("id", help="the twelve digits after `tor-`, or the whole key")
    revoke.set_defaults(run=_revoke)
    for verb in (add, show, revoke):
        verb.add_argument("--file", type=Path, default=Path(DEFAULT_FILE), help="default: %(default)s")
        verb.add_argument("--json", action="store_true")


def _add(options: argparse.Namespace) -> int:
    try:
        limits = KeyLimits(
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
            max_concurrent=options.max_concurrent,
            usd_per_day=options.usd_per_day,
        )
        experts = None if options.experts is None else [*filter(None, options.experts.split(","))]
        key, record = new_key(options.name, experts=experts, preset=options.preset, limits=limits)
    except ValidationError as error:
        raise KeyFileError(explain(error, "")) from None
    with _locked(options.file):
        found = read_keys(options.file) if options.file.exists() else KeyFile()
        write_keys(options.file, found.model_copy(update={"keys": [*found.keys, record]}))
    if options.json:
        _tell(json.dumps({"key": key, **_shown(record)}))
    else:
        _tell(key)
        sys.stderr.write(f"shown once; {options.file} keeps its digest as {record.id}\n")
    return 0


def _list(options: argparse.Namespace) -> int:
    records = [_shown(record) for record in read_keys(options.file).keys]
    if options.json:
        _tell(json.dumps({"keys": records}, indent=2))
        return 0
    for record in records:
        told = ", ".join(f"{name} {value}" for name, value in record.items() if value not in (None, {}))
        _tell(told)
    return 0


def _revoke(options: argparse.Namespace) -> int:
    key_id = options.id.removeprefix("tor-").partition("-")[0]
    with _locked(options.file):
        found = read_keys(options.file)
        if key_id not in {record.id for record in found.keys}:
            known = ", ".join(record.id for record in found.keys) or "none"
            raise KeyFileError(f"{options.file} holds no key {key_id[:32]!r}; it holds: {known}")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        records = [
            record.model_copy(update={"revoked": record.revoked or now}) if record.id == key_id else record
            for record in found.keys
        ]
        write_keys(options.file, found.model_copy(update={"keys": records}))
    _tell(json.dumps({"revoked": key_id}) if options.json else f"{key_id} is revoked")
    return 0


def _shown(record: KeyRecord) -> dict[str, Any]:
    """What may be seen of a key."""
    return record.model_dump(exclude={"salt", "digest"}, exclude_none=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two commands at once change the file one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
