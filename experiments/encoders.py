"""Encoders on recorded outcomes: the same splits and method, with paired differences to the first encoder.

    python -m experiments.encoders --data FOLDER [--encoders default,static,auto] [--first-seed 5]

Figures are AIQ, and APGR for RouteLLM's pair (1,500 MMLU labels; half of GSM8K). A difference is that of the
area under quality over cost on the test queries, with its paired bootstrap error: both are means over the
splits, and splits share queries, so the error is not divided by their number.
"""

import argparse
import os
import sys
from typing import NamedTuple

import numpy as np

from experiments.data import arguments, mean_and_spread, outcomes_of
from router.data.dataset import Dataset, split_by_query
from router.data.embeddings import encode_cached
from router.encoders import load_encoder
from router.evaluation.evaluate import judge, report
from router.training.encoder_choice import Encoded, choose, train_choosing


class Pool(NamedTuple):
    """Recorded outcomes, the part of the names of experts that are excluded, and the share that is tested."""

    outcomes: str
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
}


def main() -> None:
    """Print one table, a row for each pool and encoder."""
    parser = arguments(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--encoders", default="default,static,auto", help="names, separated by commas")
    parser.add_argument("--pools", default=",".join(POOLS), help="names, separated by commas")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.splits)
    print(f"Splits {seeds.start} to {seeds.stop - 1}, method {options.method}.\n")
    print("| outcomes | encoder | figure | points over best single | difference, area | taken |")
    print("|---|---|---|---|---|---|")
    for name in options.pools.split(","):
        pool = POOLS[name]
        dataset = outcomes_of(options.data, pool.outcomes)
        if pool.excluded is not None:
            kept = [expert for expert in dataset.pool.names if pool.excluded not in expert.lower()]
            dataset = dataset.only(kept)
        for row in _rows(dataset, pool, options.encoders.split(","), seeds, options.method):
            print(f"| {name} | {' | '.join(row)} |", flush=True)


def _rows(
    dataset: Dataset, pool: Pool, labels: list[str], seeds: range, method: str
) -> list[tuple[str, ...]]:
    candidates = {
        label: [_encoded(one, dataset) for one in (("static", "default") if label == "auto" else (label,))]
        for label in labels
    }
    found: dict[str, list[tuple[float, float, str]]] = {label: [] for label in labels}
    apart: dict[str, list[tuple[float, float]]] = {label: [] for label in labels}
    for seed in seeds:
        inside, outside = split_by_query(dataset.texts, fraction=pool.tested, seed=seed)
        judged = []
        for label in labels:
            print(f"{pool.outcomes}: {label}, split {seed}", file=sys.stderr, flush=True)
            part = [one.take(inside) for one in candidates[label]]
            policy = train_choosing(dataset.take(inside), part, method=method, seed=seed)
            (used,) = (one for one in candidates[label] if one.spec == policy.encoder)
            judged.append(judge(policy, dataset.take(outside), used.embeddings[outside]))
            figures = report(judged[-1])
            gain = 100 * figures["quality_gain_points"]
            found[label].append((figures[pool.figure], gain, policy.encoder.kind))
        _, compared = choose([one.scores for one in judged], judged[0].dataset, labels, seed=seed)
        for label, one in zip(labels, compared["tried"], strict=True):
            apart[label].append((one["difference"], one["standard_error"]))
    rows: list[tuple[str, ...]] = []
    for label in labels:
        values, gains, kinds = zip(*found[label], strict=True)
        difference, error = np.mean(apart[label], axis=0)
        taken = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
        rows.append(
            (
                label,
                mean_and_spread(values),
                f"{np.mean(gains):+.2f}",
                f"{difference:+.4f} ± {error:.4f}",
                taken,
            )
        )
    return rows


def _encoded(name: str, dataset: Dataset) -> Encoded:
    encoder = load_encoder(name, threads=os.cpu_count() or 1)
    return Encoded(encoder.spec, encode_cached(encoder, dataset.texts))


if __name__ == "__main__":
    main()
