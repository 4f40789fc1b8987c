"""The command `plans`: what plans would give on recorded outcomes, before any training."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from router.cli.inputs import add_outcomes, count, outcomes_of, seed
from router.errors import OutcomesError


def add_commands(commands: Any) -> None:
    """Register the command with argparse's subparsers."""
    plans = commands.add_parser(
        "plans", help="what plans would give on recorded responses: acceptance, precision, quality, cost"
    )
    add_outcomes(plans)
    plans.add_argument("--plans", type=Path, help="YAML file of plans; left out, all simple ones are tried")
    plans.add_argument("--most", type=count, default=20, help="number of plans to show, best first")
    plans.add_argument("--seed", type=seed, default=0, help="a whole number from 0")
    plans.add_argument("--json", action="store_true", help="print the figures as JSON")
    plans.set_defaults(run=_plans)


def _plans(options: argparse.Namespace) -> int:
    from router.plans.choice import Trials, gain_bounds
    from router.plans.plan import check_plans, load_plans
    from router.plans.replay import Recording
    from router.training.fitting import fold_of

    dataset = outcomes_of(options)
    recording = Recording(dataset)
    if not recording.has_responses:
        raise OutcomesError(
            f"{options.outcomes} holds no `response`: collect it with `to-router collect`, which records them"
        )
    # Without a method the experts' means are their scores: no plan then profits from knowing the query.
    scores = np.tile(np.nanmean(dataset.quality, axis=0), (len(dataset), 1))
    trials = Trials(recording, scores, fold_of(dataset.texts, seed=options.seed))
    wanted = trials.enumerate() if options.plans is None else load_plans(options.plans)
    check_plans(wanted, dataset.pool.names, most=None)
    tried = [trials.of(plan) for plan in wanted]
    bounds = gain_bounds(tried, dataset.quality, dataset.costs_usd)
    order = sorted(range(len(tried)), key=lambda at: -bounds[at])[: options.most]
    found = {
        "n_queries": len(dataset),
        "tried": len(tried),
        "experts": {
            name: {
                "quality": float(np.nanmean(dataset.quality[:, column])),
                "cost_usd": _cost(dataset, column),
            }
            for column, name in enumerate(dataset.pool.names)
        },
        "plans": [_row(tried[at], bounds[at]) for at in order],
    }
    print(json.dumps(found, indent=2) if options.json else _as_markdown(found))
    return 0


def _cost(dataset: Any, column: int) -> float | None:
    costs = dataset.costs_usd
    return None if costs is None else float(np.nanmean(costs[:, column]))


def _row(tried: Any, bound: float) -> dict[str, Any]:
    from router.evaluation.metrics import interval

    plan, outcome = tried.plan, tried.outcome
    known = np.isfinite(outcome.quality)
    accepted, right = (outcome.accepted == 1)[known], outcome.answer_quality[known]

    def ci95(values: Any) -> list[float] | None:
        return None if not len(values) else interval(lambda weights: weights @ values, len(values))

    return {
        "name": plan.name,
        "ask": list(plan.ask),
        "samples": plan.samples,
        "else": plan.otherwise,
        "at_least": plan.at_least,
        **outcome.figures(),
        "acceptance_rate_ci95": ci95(accepted.astype(float)),
        "precision_ci95": ci95(right[accepted]),
        "quality_ci95": ci95(outcome.quality[known]),
        "cost_usd_ci95": None if outcome.cost_usd is None else ci95(outcome.cost_usd[known]),
        "gain_over_experts_low": None if not np.isfinite(bound) else bound,
    }


def _as_markdown(found: dict[str, Any]) -> str:
    lines = [
        f"{found['n_queries']} queries, {found['tried']} plans tried. Gain: lower bound of the quality over "
        "the experts' front at equal cost, in points.",
        "",
        "| plan or expert | accepted | precision (95 %) | quality (95 %) | US$ per 1,000 queries | gain |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in found["experts"].items():
        lines.append(f"| {name} | – | – | {one['quality']:.4f} | {_thousand(one['cost_usd'])} | – |")
    for plan in found["plans"]:
        bound = plan["gain_over_experts_low"]
        lines.append(
            f"| {plan['name']} | {plan['acceptance_rate']:.1%} | {_with_range(plan, 'precision')} "
            f"| {_with_range(plan, 'quality')} | {_thousand(plan['cost_usd'])} "
            f"| {'–' if bound is None else f'{100 * bound:+.2f}'} |"
        )
    return "\n".join(lines) + "\n"


def _with_range(plan: dict[str, Any], name: str) -> str:
    value, limits = plan[name], plan[f"{name}_ci95"]
    return "–" if value is None or limits is None else f"{value:.4f} ({limits[0]:.4f} to {limits[1]:.4f})"


def _thousand(value: float | None) -> str:
    return "–" if value is None else f"{1000 * value:.4g}"
