"""The commands that read the decision log: what-if, log."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from router.cli.inputs import embed, encoder_of, seed
from router.core import FloatArray
from router.encoders import EncoderSpec
from router.errors import InputError
from router.policy import Policy

DEFAULT_LOG = Path("var/decisions")


def add_commands(commands: Any) -> None:
    """Register the commands with argparse's subparsers."""
    what_if = commands.add_parser("what-if", help="what policies would have given on logged traffic")
    what_if.add_argument(
        "--log",
        type=Path,
        action="append",
        required=True,
        help="folder of a decision log; may be repeated",
    )
    what_if.add_argument(
        "--policy", type=Path, action="append", required=True, help="a policy folder; may be repeated"
    )
    what_if.add_argument(
        "--reward",
        choices=("judged", "ratings"),
        default="judged",
        help="the judged random sample, or the ratings that clients chose to give",
    )
    what_if.add_argument("--seed", type=seed, default=0, help="of the reward model's folds")
    what_if.add_argument("--json", action="store_true", help="print the figures as JSON")
    what_if.set_defaults(run=_what_if)

    log = commands.add_parser("log", help="delete records of the decision log")
    actions = log.add_subparsers(dest="action", required=True, metavar="ACTION")
    delete = actions.add_parser("delete", help="delete all records of a key, or of a request")
    delete.add_argument(
        "--log", type=Path, default=DEFAULT_LOG, help="folder of the decision log; default: %(default)s"
    )
    subject = delete.add_mutually_exclusive_group(required=True)
    subject.add_argument("--key", help="id of an API key: its requests, their ratings and judgements")
    subject.add_argument("--request", help="id of a request")
    delete.set_defaults(run=_delete)


def _what_if(options: argparse.Namespace) -> int:
    from router.learning.log import read_folders
    from router.learning.logged import traffic_of
    from router.learning.what_if import what_if

    invalid: list[None] = []
    policies = [(folder, Policy.load(folder)) for folder in options.policy]
    records = read_folders(_distinct(options.log), lambda: invalid.append(None))
    found = what_if(
        traffic_of(records, reward=options.reward),
        policies,
        _Encoders().embed,
        reward=options.reward,
        seed=options.seed,
    )
    if invalid:
        print(f"{len(invalid)} lines of the log are no valid records and were skipped", file=sys.stderr)
    print(json.dumps(found.as_json(), indent=2) if options.json else _as_text(found))
    return 0


class _Encoders:
    """Encoders by their specification, each loaded once and only when a text needs it."""

    def __init__(self) -> None:
        self._known: dict[EncoderSpec, dict[tuple[str, ...], FloatArray]] = {}

    def embed(self, spec: EncoderSpec, texts: Sequence[str]) -> FloatArray:
        known = self._known.setdefault(spec, {})
        key = tuple(texts)
        if key not in known:
            known[key] = embed(encoder_of(spec), list(texts))
        return known[key]


def _distinct(folders: Sequence[Path]) -> list[Path]:
    """Folders without repetition: a record that is read twice would count twice.

    Raises:
        InputError: a folder is missing.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    return list({folder.resolve(): folder for folder in folders}.values())


def _as_text(found: Any) -> str:
    lines = [
        f"{found.n} decisions with a reward ({found.reward}); quality as served "
        f"{found.logged.value:.3f} ({found.logged.low:.3f} to {found.logged.high:.3f})"
    ]
    lines += [f"left out: {count} {why}" for why, count in sorted(found.left_out.items())]
    lines += [
        "",
        "| policy | quality (95 %) | gain in points (95 %) | US$ a request | seconds | effective n "
        "| unsupported | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found.policies:
        estimate = one.estimate
        lines.append(
            f"| {one.policy_id} | {_range(estimate.doubly_robust, 1)} | {_range(estimate.gain, 100)} "
            f"| {_number(one.cost_usd)} | {_number(one.latency_s)} | {estimate.effective_n:.0f} "
            f"| {estimate.unsupported:.1%} | {one.verdict} |"
        )
    if found.reward == "ratings":
        lines += ["", "Clients choose what they rate: these figures are of rated responses only."]
    return "\n".join([*lines, "", *(one.sentence for one in found.policies)])


def _range(interval: Any, scale: int) -> str:
    if interval is None:
        return "–"
    digits = 3 if scale == 1 else 1
    value, low, high = (f"{scale * number:.{digits}f}" for number in (interval.value, *interval.ci95))
    return f"{value} ({low} to {high})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _delete(options: argparse.Namespace) -> int:
    from router.learning.log import delete_records

    count = delete_records(options.log, key=options.key, request_id=options.request)
    print(f"{options.log}: {count} records deleted")
    return 0
