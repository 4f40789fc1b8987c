"""The commands that read the decision log: what-if, drift, log; `learn` has a file of its own."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from router.cli import learn
from router.cli.inputs import seed
from router.cli.logs import Encoders, add_reward, distinct
from router.errors import EncoderError
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
    add_reward(what_if)
    what_if.add_argument("--seed", type=seed, default=0, help="of the reward model's folds")
    what_if.add_argument("--json", action="store_true", help="print the figures as JSON")
    what_if.set_defaults(run=_what_if)

    learn.add_command(commands)

    drift = commands.add_parser("drift", help="which experts differ from what the policy predicts of them")
    drift.add_argument("--log", type=Path, required=True, help="folder of the decision log")
    drift.add_argument("--policy", type=Path, required=True, help="the policy whose predictions are examined")
    add_reward(drift)
    drift.add_argument("--json", action="store_true", help="print the findings as JSON")
    drift.set_defaults(run=_drift)

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
    from router.learning.logged import reward_in, traffic_of
    from router.learning.what_if import what_if

    invalid: list[None] = []
    policies = [(folder, Policy.load(folder)) for folder in options.policy]
    records = read_folders(distinct(options.log), lambda: invalid.append(None))
    reward = options.reward or reward_in(records)
    traffic = traffic_of(records, reward=reward)
    found = what_if(traffic, policies, Encoders().embed, reward=reward, seed=options.seed)
    if invalid:
        print(f"{len(invalid)} lines of the log are no valid records and were skipped", file=sys.stderr)
    print(json.dumps(found.as_json(), indent=2) if options.json else _as_text(found))
    return 0


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


def _drift(options: argparse.Namespace) -> int:
    from router.learning.drift import distances, drift
    from router.learning.log import read_folders
    from router.learning.logged import reward_in, rewards_of
    from router.learning.record import DecisionRecord

    policy = Policy.load(options.policy)
    records = read_folders(distinct([options.log]))
    decisions = sorted(
        (one for one in records if isinstance(one, DecisionRecord)), key=lambda record: record.time
    )
    rewards = rewards_of(records, reward=options.reward or reward_in(records))
    try:
        far = distances(decisions, policy, Encoders().embed)
    except EncoderError as error:
        print(f"without distances to the training queries: {error}", file=sys.stderr)
        far = {}
    found = drift(decisions, rewards, policy.policy_id, far)
    if options.json:
        print(json.dumps(found.as_json(), indent=2))
        return 0
    print(f"{found.n_earlier} earlier decisions of policy {policy.policy_id}, {found.n_later} later ones")
    for one in found.findings:
        if one.drifted:
            print(
                f"{one.expert or 'all traffic'}: {one.kind} {one.earlier:+.3f} → {one.later:+.3f} "
                f"(difference {one.low:+.3f} to {one.high:+.3f})"
            )
    print(f"drifted: {', '.join(found.experts) or 'no expert'}")
    return 0


def _delete(options: argparse.Namespace) -> int:
    from router.learning.log import delete_records

    count = delete_records(options.log, key=options.key, request_id=options.request)
    print(f"{options.log}: {count} records deleted")
    return 0
