"""The commands that read the decision log: what-if, learn, drift, log."""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from router.cli.inputs import embed, encoder_of, seed, show_step
from router.cli.judging import add_judging, judged, planned
from router.core import FloatArray
from router.encoders import EncoderSpec
from router.errors import InputError
from router.files import new_folder_atomically, require_absent
from router.policy import Policy

DEFAULT_LOG = Path("var/decisions")
SOURCES = {"judged": "that of a judged random sample", "ratings": "what clients chose to rate"}


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
    _add_reward(what_if)
    what_if.add_argument("--seed", type=seed, default=0, help="of the reward model's folds")
    what_if.add_argument("--json", action="store_true", help="print the figures as JSON")
    what_if.set_defaults(run=_what_if)

    learn = commands.add_parser(
        "learn", help="train a policy on logged traffic, and keep it only if later traffic proves it better"
    )
    learn.add_argument("--log", type=Path, required=True, help="folder of the decision log")
    learn.add_argument("--policy", type=Path, required=True, help="the policy in effect")
    learn.add_argument(
        "--out",
        type=Path,
        required=True,
        help="a new folder for report.json, report.md, and policy if kept",
    )
    _add_reward(learn)
    learn.add_argument("--method", default="auto", help="of the new policy; the default picks and blends")
    learn.add_argument("--seed", type=seed, default=0, help="a whole number from 0")
    add_judging(learn)
    learn.add_argument("--dry-run", action="store_true", help="show what would be used, and stop")
    learn.add_argument("--json", action="store_true", help="print report.json")
    learn.set_defaults(run=_learn)

    drift = commands.add_parser("drift", help="which experts differ from what the policy predicts of them")
    drift.add_argument("--log", type=Path, required=True, help="folder of the decision log")
    drift.add_argument("--policy", type=Path, required=True, help="the policy whose predictions are examined")
    _add_reward(drift)
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


def _add_reward(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--reward",
        choices=("judged", "ratings"),
        help="the judged random sample, or what clients chose to rate; default: judged, without any ratings",
    )


def _what_if(options: argparse.Namespace) -> int:
    from router.learning.log import read_folders
    from router.learning.logged import reward_in, traffic_of
    from router.learning.what_if import what_if

    invalid: list[None] = []
    policies = [(folder, Policy.load(folder)) for folder in options.policy]
    records = read_folders(_distinct(options.log), lambda: invalid.append(None))
    reward = options.reward or reward_in(records)
    traffic = traffic_of(records, reward=reward)
    found = what_if(traffic, policies, _Encoders().embed, reward=reward, seed=options.seed)
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


def _learn(options: argparse.Namespace) -> int:
    from router.learning.gates import alpha_of, read_gates
    from router.learning.learn import learn, of_policy, outcomes, parts
    from router.learning.log import read_folders
    from router.learning.logged import reward_in, traffic_of

    require_absent(options.out)
    current = Policy.load(options.policy)
    records = read_folders(_distinct([options.log]))
    if options.judge and options.dry_run:
        print(json.dumps(planned(options, current, records), indent=2))
        return 0
    if options.judge:
        judged(options, current, records)
        records = read_folders([options.log])
    reward = options.reward or reward_in(records)
    traffic = traffic_of(records, reward=reward)
    tried = len(read_gates(options.log))
    if options.dry_run:
        earlier, later = parts(traffic)
        plan = {
            "reward": reward,
            "decisions": len(traffic.decisions),
            "left_out": dict(traffic.left_out),
            "train": len(earlier.decisions),
            "outcomes": len(outcomes(earlier.decisions)),
            "gate": len(of_policy(later, current.policy_id).decisions),
            "gates_before": tried,
            "alpha": alpha_of(tried),
        }
        print(json.dumps(plan, indent=2))
        return 0
    found = learn(
        traffic,
        current,
        _Encoders().embed,
        method=options.method,
        tried=tried,
        seed=options.seed,
        notify=show_step,
    )
    report = _record(options, current, found, tried, reward)
    print(json.dumps(report, indent=2) if options.json else report["sentence"])
    return 0 if found.kept else 1


def _record(
    options: argparse.Namespace, current: Policy, found: Any, tried: int, reward: str
) -> dict[str, Any]:
    """Record the gate beside the log, then write the folder; returns the report."""
    from router.learning.gates import Gate, record
    from router.training.card import card

    gain = found.gate.gain
    with new_folder_atomically(options.out) as folder:
        saved = found.candidate.save(folder / "policy", card(found.candidate))
        if not found.kept:
            shutil.rmtree(folder / "policy")
        gate = Gate(
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            policy=current.policy_id,
            candidate=saved.policy_id,
            alpha=found.alpha,
            kept=found.kept,
            gain=None if gain is None else gain.value,
            low=None if gain is None else gain.low,
            high=None if gain is None else gain.high,
            effective_n=found.gate.effective_n,
            obstacle=found.gate.obstacle,
        )
        report = {
            **asdict(gate),
            "reward": reward,
            "trained_on": found.trained_on,
            "gated_on": found.gated_on,
            "gates_before": tried,
            "sentence": _sentence(gate),
        }
        (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (folder / "report.md").write_text(_report(report), encoding="utf-8")
        record(options.log, gate)
    return report


def _sentence(gate: Any) -> str:
    verdict = "is kept" if gate.kept else "is not kept; the policy in effect stays"
    if gate.gain is None:
        why = f"the later part of the log cannot show its value ({gate.obstacle})"
        return f"policy {gate.candidate} {verdict}: {why}"
    return (
        f"policy {gate.candidate} {verdict}: {100 * gate.gain:+.1f} points ({100 * gate.low:+.1f} to "
        f"{100 * gate.high:+.1f}) on later traffic against policy {gate.policy}"
    )


def _report(report: Mapping[str, Any]) -> str:
    return (
        f"# Learned from traffic\n\n{report['sentence'][0].upper()}{report['sentence'][1:]}.\n\n"
        f"- Trained on {report['trained_on']} decisions of the earlier part of the log.\n"
        f"- Judged on {report['gated_on']} decisions of the later part, worth "
        f"{report['effective_n']:.0f} conversations for this policy.\n"
        f"- Quality is {SOURCES[report['reward']]}.\n"
        f"- Gate number {report['gates_before'] + 1} on this log: its error probability is "
        f"{report['alpha']:.4f}, and that of all its gates together at most 0.05.\n"
    )


def _drift(options: argparse.Namespace) -> int:
    from router.learning.drift import drift
    from router.learning.log import read_folders
    from router.learning.logged import reward_in, rewards_of
    from router.learning.record import DecisionRecord

    policy = Policy.load(options.policy)
    records = read_folders(_distinct([options.log]))
    decisions = sorted(
        (one for one in records if isinstance(one, DecisionRecord)), key=lambda record: record.time
    )
    rewards = rewards_of(records, reward=options.reward or reward_in(records))
    found = drift(decisions, rewards, policy.policy_id)
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
