"""The command `learn`: a policy from the decision log, kept only with proof."""

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from router.cli import judging
from router.cli.inputs import seed, show_step
from router.cli.logs import Encoders, add_reward, distinct
from router.files import new_folder_atomically, require_absent
from router.policy import Policy

SOURCES = {"judged": "that of a judged random sample", "ratings": "what clients chose to rate"}


def add_command(commands: Any) -> None:
    """Register the command with argparse's subparsers."""
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
    add_reward(learn)
    learn.add_argument("--method", default="auto", help="of the new policy; the default picks and blends")
    learn.add_argument("--seed", type=seed, default=0, help="a whole number from 0")
    judging.add_judging(learn)
    learn.add_argument("--dry-run", action="store_true", help="show what would be used, and stop")
    learn.add_argument("--json", action="store_true", help="print report.json")
    learn.set_defaults(run=_learn)


def _learn(options: argparse.Namespace) -> int:
    from router.learning.gates import alpha_of, read_gates
    from router.learning.learn import learn, of_policy, outcomes, parts
    from router.learning.log import read_folders
    from router.learning.logged import reward_in, traffic_of

    require_absent(options.out)
    current = Policy.load(options.policy)
    records = read_folders(distinct([options.log]))
    if judging.wanted(options) and options.dry_run:
        print(json.dumps(judging.planned(options, current, records), indent=2))
        return 0
    if judging.wanted(options):
        judging.judged(options, current, records)
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
        Encoders().embed,
        method=options.method,
        tried=tried,
        seed=options.seed,
        notify=show_step,
    )
    report = _record(
        options, current, found, tried, {"reward": reward, "graded_by": judging.graders(records)}
    )
    print(json.dumps(report, indent=2) if options.json else report["sentence"])
    return 0 if found.kept else 1


def _record(
    options: argparse.Namespace, current: Policy, found: Any, tried: int, source: Mapping[str, Any]
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
            **source,
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
        f"- Quality is {SOURCES[report['reward']]}{_graders(report)}.\n"
        f"- Gate number {report['gates_before'] + 1} on this log: its error probability is "
        f"{report['alpha']:.4f}, and that of all its gates together at most 0.05.\n"
    )


def _graders(report: Mapping[str, Any]) -> str:
    if report["reward"] != "judged":
        return ""
    return ", by " + ", ".join(f"{name} ({count})" for name, count in report["graded_by"].items())
