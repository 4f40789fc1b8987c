"""Each expert of MMLU-Pro left out of training, then added from 100 probes, against full retraining.

Mean over all experts and several draws of probes; quality at cost weight 0, and AIQ.
"""

import sys

import numpy as np

from experiments.data import Recorded, arguments, recorded
from router.data.dataset import Dataset, split_by_query
from router.errors import OutcomesError
from router.evaluation.evaluate import curve, judge
from router.methods.hull import area
from router.policy import Policy
from router.training.add_expert import add_expert
from router.training.train import train


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--probes", type=int, default=100)
    parser.add_argument("--draws", type=int, default=20, help="draws of probes for each expert")
    parser.add_argument("--set", default="mmlupro10", help="name of the outcomes")
    options = parser.parse_args()
    outcomes = recorded(options.data, options.set)
    inside, outside = split_by_query(outcomes.dataset.texts, fraction=0.3, seed=0)
    training = Recorded(outcomes.dataset.take(inside), outcomes.embeddings[inside], outcomes.encoder)
    test = Recorded(outcomes.dataset.take(outside), outcomes.embeddings[outside], outcomes.encoder)
    whole = train(training.dataset, training.embeddings, training.encoder, method=options.method)
    full = _figures(whole, test)
    print(f"### Leave one expert out, {options.set}, {options.probes} probes, {options.draws} draws\n")
    print(f"Retrained on all: quality {full[0]:.4f}, AIQ {full[1]:.4f}.\n")
    print("| left out, then added | quality against retrained, points | AIQ against retrained |")
    print("|---|---|---|")
    quality: list[list[float]] = []
    areas: list[list[float]] = []
    for name in training.dataset.pool.names:
        others = [other for other in training.dataset.pool.names if other != name]
        base = train(
            training.dataset.only(others), training.embeddings, training.encoder, method=options.method
        )
        lost = [
            _added(base, training, test, name, options.probes, draw, full) for draw in range(options.draws)
        ]
        quality.append([one for one, _ in lost])
        areas.append([two for _, two in lost])
        cells = f"{_spread(quality[-1], 2)} | {_spread(areas[-1], 4)}"
        print(f"| {name} | {cells} |", flush=True)
        print(name, file=sys.stderr, flush=True)
    print(f"| **mean** | {_interval(quality, 2)} | {_interval(areas, 4)} |")


def _added(
    base: Policy,
    training: Recorded,
    test: Recorded,
    name: str,
    count: int,
    draw: int,
    full: tuple[float, float],
) -> tuple[float, float]:
    rows = np.sort(np.random.default_rng(draw).permutation(len(training.dataset))[:count])
    probes: Dataset = training.dataset.take(rows)
    grown = add_expert(base, probes, training.embeddings[rows], name=name)
    quality, aiq = _figures(grown, test)
    return 100 * (quality - full[0]), aiq - full[1]


def _figures(policy: Policy, test: Recorded) -> tuple[float, float]:
    """Return quality at cost weight 0 and AIQ on the test queries."""
    judged = judge(policy, test.dataset.only(policy.pool.names), test.embeddings)
    points = curve(judged, judged.scores)
    paid = judged.paid
    if paid is None:
        raise OutcomesError("the comparison of AIQ needs outcomes with costs")
    single = paid.mean(axis=0)
    ours = np.array([[point["cost_usd"], point["quality"]] for point in points])
    aiq = area(ours[:, 0], ours[:, 1], float(single.min()), float(single.max()))
    return float(points[0]["quality"]), aiq


def _spread(values: list[float], digits: int) -> str:
    return f"{np.mean(values):+.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def _interval(values: list[list[float]], digits: int) -> str:
    """Format the mean, and a 95 % bootstrap interval over experts and draws."""
    table, rng = np.array(values), np.random.default_rng(0)
    means = []
    for _ in range(2000):
        experts = rng.integers(0, len(table), len(table))
        draws = rng.integers(0, table.shape[1], table.shape)
        means.append(np.take_along_axis(table[experts], draws, axis=1).mean())
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{table.mean():+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


if __name__ == "__main__":
    main()
