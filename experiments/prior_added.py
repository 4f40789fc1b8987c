"""A new expert from few outcomes, with and without its prior: `python -m experiments.prior_added`.

Each expert of a recorded pool is left out in turn and added again: the error of its mean quality. The pool's
own outcomes are left out of the catalogue, and the models are renamed.
"""

from collections import defaultdict

import numpy as np

from experiments.data import arguments
from experiments.prior_pools import POOLS, Encoded, Renamed, first_samples, priced
from router.core import QueryBatch, TrainingSet
from router.data.dataset import split_by_query
from router.encoders import load_encoder
from router.methods.added import AddedRouter
from router.methods.registry import make
from router.methods.shrink import global_means
from router.priors.abilities import AbilityPrior
from router.priors.added import expected_mean
from router.priors.catalogue import load_catalogue

COUNTS = (5, 20, 50)


def main() -> None:
    """Print a table for the pools."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--pools", default="mmlupro10,reasoninggym7", help="names, separated by commas")
    options = parser.parse_args()
    runtime = load_encoder("static")
    encoder = Encoded(runtime.spec, runtime.encode)
    print("Mean absolute error of the new expert's mean quality, in points.\n")
    print(
        "| pool | " + " | ".join(f"{n} outcomes, without | with prior" for n in COUNTS) + " | prior alone |"
    )
    print("|---|" + "---|" * (2 * len(COUNTS) + 1))
    for name in options.pools.split(","):
        pool = POOLS[name]
        outcomes = priced(first_samples(options.data, pool.outcomes, encoder))
        prior = AbilityPrior.fit(load_catalogue().without(pool.benchmarks))
        texts, quality = outcomes.dataset.texts, outcomes.dataset.quality
        experts = [Renamed(expert, expert.name) for expert in outcomes.dataset.pool]
        errors: dict[str, list[float]] = defaultdict(list)
        for seed in range(options.splits):
            inside, outside = split_by_query(texts, fraction=0.3, seed=seed)
            order = np.random.default_rng(seed).permutation(inside)
            for column, new in enumerate(experts):
                others = np.delete(np.arange(len(experts)), column)
                known = quality[inside][:, others]
                batch = QueryBatch(tuple(texts[row] for row in inside), outcomes.embeddings[inside])
                fitted = make("linear", {}).fit(TrainingSet(batch, known, None, None), seed=seed)
                means = global_means(known)
                expected = expected_mean(prior, [experts[other] for other in others], means, new)
                truth = float(np.nanmean(quality[outside, column]))
                errors["prior"].append(abs(expected[0] - truth))
                for count in COUNTS:
                    rows = order[:count]
                    probes = QueryBatch(tuple(texts[row] for row in rows), outcomes.embeddings[rows])
                    measured = quality[rows, column], quality[rows][:, others], means
                    for what, given in (("without", None), ("with", expected)):
                        grown = AddedRouter().learn(fitted, probes, *measured, expected=given)
                        errors[f"{count} {what}"].append(abs(grown.mean - truth))
        cells = [
            f"{np.mean(errors[f'{n} {what}']) * 100:.1f}" for n in COUNTS for what in ("without", "with")
        ]
        print(f"| {name} | {' | '.join(cells)} | {np.mean(errors['prior']) * 100:.1f} |", flush=True)


if __name__ == "__main__":
    main()
