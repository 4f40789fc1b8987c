"""Plans on recorded outcomes: prompt-only, plans-only and joined, beside the oracle and a fixed cascade.

    python -m experiments.plans NAME --data FOLDER [--seeds 100-109] [--parts FOLDER]

Everything is chosen on the training part of each split; intervals are a paired bootstrap over queries, where
a query counts with all splits that test it. `--parts` keeps the arrays of each split, so that an interrupted
run continues.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.data import Recorded, recorded
from router.core import FloatArray, IntArray, Preferences
from router.data.dataset import split_by_query
from router.evaluation.evaluate import EvaluatedPolicy, judge
from router.policy import Policy
from router.training.planned import with_plans
from router.training.preference import COST_WEIGHTS
from router.training.train import train_experts

FRACTION = 0.3
BINS = 10
RESAMPLES = 2000
NEVER = -1e9
"""A score with which a candidate is never chosen."""
Part = dict[str, FloatArray]
"""Arrays of one split: what each arm gave and cost on every test query."""


def main() -> None:
    """Run the splits and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="name of the outcomes")
    parser.add_argument("--data", required=True, type=Path, help="folder of recorded outcomes (Parquet)")
    parser.add_argument("--seeds", default="0-4", help="first and last seed of the splits")
    parser.add_argument("--method", default="auto", help="method of the policies")
    parser.add_argument("--parts", type=Path, help="folder that keeps the arrays of each split")
    options = parser.parse_args()
    outcomes = recorded(options.data, options.name)
    folder = options.parts or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    first, last = (int(number) for number in options.seeds.split("-"))
    parts = []
    for seed in range(first, last + 1):
        file = folder / f"{options.name}-{seed}.npz"
        if not file.is_file():
            np.savez(file, **split(outcomes, seed, options.method))  # type: ignore[arg-type]  # its own keyword
        with np.load(file) as stored:
            parts.append({key: stored[key] for key in stored.files})
        print(f"seed {seed} done", file=sys.stderr, flush=True)
    print(f"### {options.name}, seeds {options.seeds}\n")
    print(table(parts))
    print(acceptance(parts))


def split(outcomes: Recorded, seed: int, method: str) -> Part:
    """Train with and without plans on one split, and return what each arm gave on its test queries."""
    inside, outside = split_by_query(outcomes.dataset.texts, fraction=FRACTION, seed=seed)
    training, test = outcomes.dataset.take(inside), outcomes.dataset.take(outside)
    embeddings = outcomes.embeddings
    alone, material, fit = train_experts(
        training, embeddings[inside], outcomes.encoder, method=method, seed=seed
    )
    joined = with_plans(
        alone, material, "auto", fit=fit, notify=lambda line: print(line, file=sys.stderr, flush=True)
    )
    planned = judge(joined, test, embeddings[outside])
    kept = [test.query_ids.index(one) for one in planned.dataset.query_ids]
    without = judge(alone, test.take(np.array(kept)), embeddings[outside][kept])
    best = without.best_single
    found: Part = {
        "rows": outside[kept].astype(float),
        "best_quality": without.quality[:, best],
        "best_cost": _paid(without)[:, best],
        "plans": np.array([0.0 if joined.plans is None else float(len(joined.plans))]),
        "weight": np.array([joined.training.get("equal_quality_cost_weight") or np.nan]),
    }
    found |= _arm("prompt", alone, without)
    found |= _arm("joined", joined, planned)
    plans_only = planned.scores.copy()
    others = [column for column in range(len(joined.pool)) if planned.plans is not None or column != best]
    plans_only[:, others] = NEVER
    found |= _arm("plans", joined, replace(planned, scores=plans_only))
    found |= _fixed(joined, planned)
    quality, paid = without.quality, _paid(without)
    top = quality.max(axis=1, keepdims=True)
    cheapest = np.where(quality >= top, paid, np.inf).argmin(axis=1)
    found["oracle_top_quality"], found["oracle_top_cost"] = top[:, 0], paid[np.arange(len(paid)), cheapest]
    return found | _judged_answers(planned)


def _arm(name: str, policy: Policy, judged: EvaluatedPolicy) -> Part:
    """Quality and cost at cost weight 0, at the preference for equal quality, and at every weight."""
    paid, each = _paid(judged), np.arange(len(judged.quality))
    weight = policy.training["equal_quality_cost_weight"]

    def at(cost_weight: float) -> IntArray:
        return judged.choices(Preferences(cost_weight=cost_weight))

    equal = np.full(len(each), judged.best_single) if weight is None else at(weight)
    curve = [at(one) for one in COST_WEIGHTS]
    return {
        f"{name}_top_quality": judged.quality[each, at(0.0)],
        f"{name}_top_cost": paid[each, at(0.0)],
        f"{name}_equal_quality": judged.quality[each, equal],
        f"{name}_equal_cost": paid[each, equal],
        f"{name}_curve_quality": np.stack([judged.quality[each, chosen] for chosen in curve], axis=1),
        f"{name}_curve_cost": np.stack([paid[each, chosen] for chosen in curve], axis=1),
    }


def _fixed(policy: Policy, judged: EvaluatedPolicy) -> Part:
    """One plan for all: in training the cheapest of those that were no worse than the best expert."""
    paid, column = _paid(judged), judged.best_single
    means = policy.training["metrics"]["expert_means"][policy.training["best_single"]]
    figures = policy.training["metrics"]["plans"].get("plans", {})
    good = {name: one for name, one in figures.items() if one["quality"] >= means}
    if good and judged.plans is not None:
        column = judged.names.index(min(good, key=lambda name: good[name]["cost_usd"]))
    return {"fixed_equal_quality": judged.quality[:, column], "fixed_equal_cost": paid[:, column]}


def _judged_answers(judged: EvaluatedPolicy) -> Part:
    """Each plan's answers at hand: predicted and measured quality, and whether the policy picks the plan."""
    if judged.plans is None:
        empty = np.zeros(0)
        return dict.fromkeys(("p_right", "right", "accepted", "picked"), empty)
    chosen = judged.choices(judged.policy.preferences)
    width = len(judged.policy.pool)
    every = judged.plans.replayed
    return {
        "p_right": np.concatenate([one.p_right for one in every]),
        "right": np.concatenate([one.answer_quality for one in every]),
        "accepted": np.concatenate([one.accepted for one in every]),
        "picked": np.concatenate([(chosen == width + at).astype(float) for at in range(len(every))]),
    }


def _paid(judged: EvaluatedPolicy) -> FloatArray:
    if judged.paid is None:
        raise SystemExit("the outcomes carry no cost")
    return judged.paid


def table(parts: Sequence[Part]) -> str:
    """The table of arms: means over the splits, with 95 % intervals over queries."""
    lines = [
        "| | points over best single, cost_weight 0 | its cost | saved at the chosen preference | points "
        "then | saved in hindsight |",
        "|---|---|---|---|---|---|",
    ]
    for arm, title in (("prompt", "prompt only"), ("plans", "plans only"), ("joined", "joined")):
        cells = [_gain(parts, f"{arm}_top"), _ratio(parts, f"{arm}_top"), _saving(parts, f"{arm}_equal")]
        cells += [_gain(parts, f"{arm}_equal"), _hindsight(parts, arm)]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines.append(
        f"| fixed cascade | – | – | {_saving(parts, 'fixed_equal')} | {_gain(parts, 'fixed_equal')} | – |"
    )
    lines.append(f"| oracle | {_gain(parts, 'oracle_top')} | {_ratio(parts, 'oracle_top')} | – | – | – |")
    over = _interval(parts, lambda part: 100 * (part["joined_top_quality"] - part["prompt_top_quality"]))
    lines += ["", f"Joined over prompt only at cost_weight 0: {over} points."]
    lines.append(f"Plans kept in each split: {', '.join(str(int(part['plans'][0])) for part in parts)}.")
    return "\n".join(lines) + "\n"


def acceptance(parts: Sequence[Part]) -> str:
    """Calibration of acceptance over all plans and splits, and where the policy picks the plan."""
    pooled = {
        key: np.concatenate([part[key] for part in parts])
        for key in ("p_right", "right", "accepted", "picked")
    }
    if not len(pooled["right"]):
        return "No plan was kept: there is no acceptance to calibrate.\n"
    lines = [
        "| answers | n | ECE | ECE of a perfect model | accepted | predicted precision | measured (95 %) |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, inside in (("all", pooled["picked"] >= 0), ("picked by the policy", pooled["picked"] == 1)):
        p, right = pooled["p_right"][inside], pooled["right"][inside]
        accepted = pooled["accepted"][inside] == 1
        if not accepted.any():
            continue
        low, high = _mean_interval(right[accepted])
        lines.append(
            f"| {title} | {len(p)} | {calibration_error(p, right):.4f} | {perfect_error(p):.4f} | "
            f"{accepted.mean():.1%} | {p[accepted].mean():.4f} | {right[accepted].mean():.4f} "
            f"({low:.4f} to {high:.4f}) |"
        )
    return "\n".join(lines) + "\n"


def calibration_error(p: FloatArray, right: FloatArray) -> float:
    """Expected calibration error over bins of equal mass."""
    order = np.argsort(p, kind="stable")
    bins = np.array_split(order, BINS)
    return float(sum(len(one) * abs(p[one].mean() - right[one].mean()) for one in bins) / len(p))


def perfect_error(p: FloatArray, *, draws: int = 200) -> float:
    """The mean of that error for answers that are right with exactly the predicted probabilities."""
    rng = np.random.default_rng(0)
    return float(
        np.mean([calibration_error(p, (rng.random(len(p)) < p).astype(float)) for _ in range(draws)])
    )


def _gain(parts: Sequence[Part], key: str) -> str:
    return _interval(parts, lambda part: 100 * (part[f"{key}_quality"] - part["best_quality"]))


def _ratio(parts: Sequence[Part], key: str) -> str:
    return f"{_sum(parts, f'{key}_cost') / _sum(parts, 'best_cost'):.2f} ×"


def _sum(parts: Sequence[Part], key: str) -> float:
    return float(sum(part[key].sum() for part in parts))


def _saving(parts: Sequence[Part], key: str) -> str:
    """One minus the ratio of summed costs, with its interval over queries."""
    spent, alone = (
        _by_query(parts, lambda part: part[f"{key}_cost"]),
        _by_query(parts, lambda part: part["best_cost"]),
    )
    weights = _weights(len(spent))
    low, high = np.quantile(1 - (weights @ spent) / (weights @ alone), [0.025, 0.975])
    return f"{1 - spent.sum() / alone.sum():.1%} ({low:.1%} to {high:.1%})"


def _hindsight(parts: Sequence[Part], arm: str) -> str:
    """Mean over splits of the greatest saving at a weight that kept the best single expert's quality."""
    found = []
    for part in parts:
        good = part[f"{arm}_curve_quality"].mean(axis=0) >= part["best_quality"].mean()
        saved = 1 - part[f"{arm}_curve_cost"].mean(axis=0) / part["best_cost"].mean()
        found.append(max(saved[good], default=0.0))
    return f"{np.mean(found):.1%}"


def _interval(parts: Sequence[Part], value: Callable[[Part], FloatArray]) -> str:
    """The mean of a value of each test query, with its interval over queries."""
    total, count = _by_query(parts, value), _by_query(parts, lambda part: np.ones(len(part["rows"])))
    weights = _weights(len(total))
    low, high = np.quantile((weights @ total) / (weights @ count), [0.025, 0.975])
    return f"{total.sum() / count.sum():+.2f} ({low:+.2f} to {high:+.2f})"


def _by_query(parts: Sequence[Part], value: Callable[[Part], FloatArray]) -> FloatArray:
    """The sum of a value over the splits that test a query, for each query that any of them tests."""
    size = 1 + max(int(part["rows"].max()) for part in parts)
    total, seen = np.zeros(size), np.zeros(size, dtype=bool)
    for part in parts:
        np.add.at(total, part["rows"].astype(int), value(part))
        seen[part["rows"].astype(int)] = True
    sums: FloatArray = total[seen]
    return sums


def _weights(n: int) -> FloatArray:
    rng = np.random.default_rng(0)
    weights: FloatArray = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)
    return weights


def _mean_interval(values: FloatArray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
