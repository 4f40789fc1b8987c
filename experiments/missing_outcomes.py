"""What do training and evaluation lose where one expert per query was measured, at random?

Policies are trained on complete outcomes, on one expert of each query, and on the same number of outcomes as
complete rows; all are judged on complete outcomes of other queries. The value of each is also estimated from
one expert of each of these queries, and compared with the complete one.

python -m experiments.missing_outcomes mmlupro10 --data FOLDER [--splits 5] [--methods linear,knn,clusters]
"""

import sys
from dataclasses import dataclass, field

import numpy as np

from experiments.data import Recorded, arguments, hide, mean_and_spread, recorded
from router.core import BoolArray, FloatArray, IntArray, QueryBatch
from router.data.dataset import split_by_query
from router.learning.estimators import Interval, estimate
from router.learning.evidence import Evidence
from router.learning.reward_model import cross_fitted
from router.training.train import train

TESTED = 0.3
TRAINED_ON = ("complete", "one expert a query", "as many, complete")


@dataclass
class Trained:
    """One method on one kind of training data, over the splits."""

    quality: list[float] = field(default_factory=list)
    """On complete outcomes."""
    estimated: list[tuple[float, Interval]] = field(default_factory=list)
    """The same quality with its estimate from outcomes with gaps."""

    def cells(self) -> str:
        """Return the cells of the table."""
        if not self.estimated:
            return f"{mean_and_spread(self.quality)} | – | – | –"
        error = 100 * float(np.mean([abs(one.value - truth) for truth, one in self.estimated]))
        covered = sum(one.low <= truth <= one.high for truth, one in self.estimated)
        width = 100 * float(np.mean([one.high - one.low for _, one in self.estimated]))
        count = len(self.estimated)
        return f"{mean_and_spread(self.quality)} | {error:.2f} | {width:.2f} | {covered} of {count}"


def one_each(shape: tuple[int, int], rng: np.random.Generator) -> BoolArray:
    """Return where one expert per query is seen, at random, [n, experts]."""
    seen: BoolArray = rng.integers(shape[1], size=shape[0])[:, None] == np.arange(shape[1])
    return seen


def estimated(
    quality: FloatArray, features: FloatArray, seen: BoolArray, chosen: IntArray
) -> Interval | None:
    """Return the value of choices from the seen outcomes alone; `None` where they are too few."""
    actions = seen.argmax(axis=1)
    evidence = Evidence(
        actions=actions,
        propensities=np.full(quality.shape, 1 / quality.shape[1]),
        rewards=quality[np.arange(len(quality)), actions],
        units=np.arange(len(quality)),
        features=features,
        weights=np.ones(len(quality)),
    )
    return estimate(evidence, chosen, cross_fitted(evidence)).doubly_robust


def compare(outcomes: Recorded, methods: list[str], *, splits: int) -> tuple[list[float], dict[str, Trained]]:
    """Return the quality of the best single expert in each split, and each trained policy's."""
    complete = outcomes.dataset.complete()
    data, embeddings = outcomes.dataset.take(complete), outcomes.embeddings[complete]
    best: list[float] = []
    found = {f"{method} | {kind}": Trained() for method in methods for kind in TRAINED_ON}
    for seed in range(splits):
        rng = np.random.default_rng(seed)
        inside, outside = split_by_query(data.texts, fraction=TESTED, seed=seed)
        tested, batch = data.quality[outside], QueryBatch(data.texts, embeddings).take(outside)
        best.append(float(tested[:, data.quality[inside].mean(axis=0).argmax()].mean()))
        seen = one_each(tested.shape, rng)
        fewer = rng.permutation(inside)[: len(inside) // tested.shape[1]]
        parts = {
            "complete": (data.take(inside), embeddings[inside]),
            "one expert a query": (
                hide(data.take(inside), one_each((len(inside), tested.shape[1]), rng)),
                embeddings[inside],
            ),
            "as many, complete": (data.take(fewer), embeddings[fewer]),
        }
        for method in methods:
            for kind, (part, rows) in parts.items():
                print(f"split {seed}: {method} on {kind}", file=sys.stderr, flush=True)
                policy = train(part, rows, outcomes.encoder, method=method, seed=seed)
                chosen = policy.score(batch).quality.argmax(axis=1)
                one = found[f"{method} | {kind}"]
                one.quality.append(float(tested[np.arange(len(tested)), chosen].mean()))
                value = estimated(tested, embeddings[outside], seen, chosen)
                if value is not None:
                    one.estimated.append((one.quality[-1], value))
    return best, found


def main() -> None:
    """Print the table of one set of outcomes."""
    parser = arguments(__doc__ or "")
    parser.add_argument("name", choices=("mmlupro10",))
    parser.add_argument("--encoder", default="static", help="of the queries")
    parser.add_argument("--methods", default="linear,knn,clusters", help="names, separated by commas")
    options = parser.parse_args()
    outcomes = recorded(options.data, options.name, encoder_name=options.encoder)
    best, found = compare(outcomes, options.methods.split(","), splits=options.splits)
    print(
        f"### {options.name}, {options.splits} splits; best single expert {mean_and_spread(best)}\n\n"
        "| method | trained on | quality | estimated with gaps: error, points | width of 95 % | covered |\n"
        + "|---" * 6
        + "|"
    )
    for name, one in found.items():
        print(f"| {name} | {one.cells()} |")


if __name__ == "__main__":
    main()
