"""Encoders on outcomes: the same splits and method, with paired differences to the first encoder.

    python -m experiments.encoders --data FOLDER [--encoders default,static,auto] [--first-seed 5]

Figures are AIQ, and APGR for RouteLLM's pair (1,500 MMLU labels; half of GSM8K); of the pocket experts, whose
answers are generated here, half of the training questions and half of the held-out ones. A difference is one
of the means over all splits. Its standard error is a paired bootstrap over the queries, with the same sample
in every split, because the test parts of splits overlap; the policies stay as they were trained.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from experiments.data import arguments, mean_and_spread, outcomes_of
from experiments.pocket_outcomes import TESTED, TRAINED, pocket_outcomes
from router.core import FloatArray, IntArray, Preferences
from router.data.dataset import Dataset, split_by_query
from router.data.embeddings import encode_cached
from router.encoders import load_encoder
from router.evaluation import metrics
from router.evaluation.evaluate import EvaluatedPolicy, judge, report
from router.methods.hull import area
from router.policy import Policy
from router.training.encoder_choice import Encoded, choose
from router.training.planned import Fit, Material
from router.training.preference import COST_WEIGHTS
from router.training.train import train_experts


class Pool(NamedTuple):
    """Outcomes, the part of the names of experts that are excluded, and the share that is tested."""

    outcomes: str | None
    """The pocket experts' where there is none."""
    excluded: str | None = None
    tested: float = 0.3
    figure: str = "aiq"


LABELS = 1500
POOLS = {
    "mmlupro10": Pool("mmlupro10"),
    "mmlupro8": Pool("mmlupro10", "gemini"),
    "zeroeval27": Pool("zeroeval28", "o1-mini"),
    "routellm_mmlu": Pool("routellm_mmlu", tested=1 - LABELS / 7018, figure="apgr"),
    "routellm_gsm8k": Pool("routellm_gsm8k", tested=0.5, figure="apgr"),
    "pocket": Pool(None, tested=0.5),
}
AUTO = ("static", "default")
"""What `train --encoder auto` chooses from; the first one unless the other is better."""
RESAMPLES = 400
SAMPLE_SEED = 0


@dataclass
class Figures:
    """An encoder's figures, split by split."""

    values: list[float] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    resampled: list[FloatArray] = field(default_factory=list)

    def add(self, judged: EvaluatedPolicy, pool: Pool, counts: IntArray) -> None:
        """Add a split's; `counts` [samples, n] are those of its test queries."""
        figures = report(judged)
        self.values.append(figures[pool.figure])
        self.gains.append(100 * figures["quality_gain_points"])
        self.kinds.append(judged.policy.encoder.kind)
        self.resampled.append(resampled(judged, counts, pool.figure))


def main() -> None:
    """Print one table, a row for each pool and encoder."""
    parser = arguments(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--encoders", default="default,static,auto", help="names, separated by commas")
    parser.add_argument("--pools", default=",".join(POOLS), help="names, separated by commas")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--most", type=int, help="queries of a set; of a larger one a random part is taken")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.splits)
    print(f"Splits {seeds.start} to {seeds.stop - 1}, method {options.method}.\n")
    print("| outcomes | encoder | figure | points over best single | difference | taken |")
    print("|---|---|---|---|---|---|")
    for name in options.pools.split(","):
        pool = POOLS[name]
        dataset = pocket_outcomes() if pool.outcomes is None else outcomes_of(options.data, pool.outcomes)
        if pool.excluded is not None:
            kept = [expert for expert in dataset.pool.names if pool.excluded not in expert.lower()]
            dataset = dataset.only(kept)
        if options.most is not None and len(dataset) > options.most:
            rows = np.random.default_rng(SAMPLE_SEED).permutation(len(dataset))[: options.most]
            dataset = dataset.take(np.sort(rows))
        for row in _rows(name, dataset, options.encoders.split(","), seeds, options.method):
            print(f"| {name} | {' | '.join(row)} |", flush=True)


def parts(dataset: Dataset, fraction: float, seed: int) -> tuple[IntArray, IntArray]:
    """Rows to train on and to test on; of outcomes with splits, only each one's own."""
    inside, outside = split_by_query(dataset.texts, fraction=fraction, seed=seed)
    if dataset.splits is None:
        return inside, outside
    splits = np.array(dataset.splits)
    return inside[splits[inside] == TRAINED], outside[splits[outside] == TESTED]


def resampled(judged: EvaluatedPolicy, counts: IntArray, figure: str) -> FloatArray:
    """The figure of each sample of the test queries, [samples], as `report` computes it.

    Args:
        judged: a policy on n queries.
        counts: how often each query is in each sample, [samples, n].
        figure: `aiq` or `apgr`.
    """
    if figure == "apgr":
        strong = judged.best_single
        lead = judged.scores[:, strong] - judged.scores[:, 1 - strong]
        drawn = [np.repeat(np.arange(len(lead)), count) for count in counts]
        pairs = [(lead[rows], judged.quality[rows][:, [1 - strong, strong]].T) for rows in drawn]
        return np.array([metrics.apgr(*metrics.gap_recovered(ahead, *both)) for ahead, both in pairs])
    assert judged.paid is not None  # noqa: S101 - AIQ is an area over costs
    shares = counts / counts.sum(axis=1, keepdims=True)
    picked = [judged.choices(Preferences(cost_weight=weight)) for weight in COST_WEIGHTS]
    each = np.arange(len(judged.quality))
    reached = shares @ np.stack([judged.quality[each, chosen] for chosen in picked], axis=1)
    spent = shares @ np.stack([judged.paid[each, chosen] for chosen in picked], axis=1)
    alone = shares @ judged.paid
    low, high = alone.min(axis=1), alone.max(axis=1)
    return np.array([area(*one) for one in zip(spent, reached, low, high, strict=True)])


def _rows(
    name: str, dataset: Dataset, labels: Sequence[str], seeds: range, method: str
) -> list[tuple[str, ...]]:
    pool = POOLS[name]
    needed = dict.fromkeys(one for label in labels for one in (AUTO if label == "auto" else (label,)))
    encoded = {one: _encoded(one, dataset) for one in needed}
    found = {label: Figures() for label in labels}
    n = len(dataset)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    place = {query_id: row for row, query_id in enumerate(dataset.query_ids)}
    for seed in seeds:
        inside, outside = parts(dataset, pool.tested, seed)
        training, test = dataset.take(inside), dataset.take(outside)
        trained: dict[str, tuple[Policy, Material, Fit]] = {}
        judged: dict[str, EvaluatedPolicy] = {}
        for one, made in encoded.items():
            print(f"{name}: {one}, split {seed}", file=sys.stderr, flush=True)
            trained[one] = train_experts(
                training, made.embeddings[inside], made.spec, method=method, seed=seed
            )
            judged[one] = judge(trained[one][0], test, made.embeddings[outside])
        if "auto" in labels:  # as `train_choosing`, without training again
            scores = [trained[one][1].scores for one in AUTO]
            judged["auto"] = judged[AUTO[choose(scores, training, AUTO, seed=seed)[0]]]
        for label in labels:
            kept = [place[query_id] for query_id in judged[label].dataset.query_ids]
            found[label].add(judged[label], pool, counts[:, kept])
    return [_row(label, found[label], found[labels[0]]) for label in labels]


def _row(label: str, ours: Figures, first: Figures) -> tuple[str, ...]:
    apart = np.mean(ours.resampled, axis=0) - np.mean(first.resampled, axis=0)
    return (
        label,
        mean_and_spread(ours.values),
        f"{np.mean(ours.gains):+.2f}",
        f"{np.mean(ours.values) - np.mean(first.values):+.4f} ± {apart.std(ddof=1):.4f}",
        ", ".join(f"{ours.kinds.count(kind)} {kind}" for kind in sorted(set(ours.kinds))),
    )


def _encoded(name: str, dataset: Dataset) -> Encoded:
    encoder = load_encoder(name, threads=os.cpu_count() or 1)
    return Encoded(encoder.spec, encode_cached(encoder, dataset.texts))


if __name__ == "__main__":
    main()
