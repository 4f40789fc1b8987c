"""Do estimates of a policy's value on another one's log cover the truth?

Outcomes of every expert are known: all but the logged expert's are hidden, many logs are simulated, and each
estimate is compared with the mean of the population that the logs were drawn from. Policies are trained on
other queries than those of the logs.

python -m experiments.off_policy mmlupro10|zeroeval27 --data FOLDER [--logs 1000] [--shares 0,0.02,0.05,0.2]
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from experiments.data import Recorded, arguments, recorded
from router.core import Exploration, FloatArray, IntArray, QueryBatch
from router.data.dataset import split_by_query
from router.learning.estimators import Interval, Obstacle, estimate
from router.learning.evidence import Evidence
from router.learning.exploration import draw
from router.learning.reward_model import components, cross_fitted
from router.training.train import train

SETS = {"mmlupro10": ("mmlupro10", ()), "zeroeval27": ("zeroeval28", ("o1-mini",))}
"""Name → file of the outcomes, and parts of the names of experts that are left out."""
IN_EFFECT = "knn"
CANDIDATES = ("linear", "clusters", "mlp", "fixed")


@dataclass(frozen=True)
class Population:
    """Queries with all outcomes, and what each policy chooses for them."""

    quality: FloatArray  # [n, experts]
    features: FloatArray  # [n, dimension]
    scores: FloatArray  # [n, experts] of the policy in effect
    choices: Mapping[str, IntArray]
    """Policy → column for each query."""

    def value(self, name: str) -> float:
        """Return the true value of a policy."""
        chosen = self.choices[name]
        return float(self.quality[np.arange(len(chosen)), chosen].mean())

    def propensities(self, exploration: Exploration) -> FloatArray:
        """Return the probabilities with which the policy in effect chooses, [n, experts]."""
        return propensities_of(self.scores, exploration)

    def log(self, propensities: FloatArray, n: int, rng: np.random.Generator) -> tuple[IntArray, Evidence]:
        """Return the rows of a simulated log, and what it holds of them."""
        rows = rng.integers(len(self.quality), size=n)
        actions = drawn(propensities[rows], rng)
        return rows, Evidence(
            actions=actions,
            propensities=propensities[rows],
            rewards=self.quality[rows, actions],
            units=np.arange(n),
            features=self.features[rows],
            weights=np.ones(n),
        )


@dataclass
class Tally:
    """Estimates of one policy over all logs."""

    truth: float
    robust: list[Interval] = field(default_factory=list)
    inverse: list[Interval] = field(default_factory=list)
    effective: list[float] = field(default_factory=list)
    unsupported: list[float] = field(default_factory=list)
    obstacles: list[Obstacle] = field(default_factory=list)

    def cells(self) -> str:
        """Return the cells of the table."""
        logs = len(self.effective)
        cells = [f"{np.median(self.effective):.0f}", f"{np.mean(self.unsupported):.1%}"]
        reasons = sorted({str(reason) for reason in self.obstacles})
        cells.append(f"{len(self.obstacles) / logs:.1%} {', '.join(reasons)}".strip())
        for intervals in (self.robust, self.inverse):
            if not intervals:
                cells += ["–", "–", "–"]
                continue
            covered = np.mean([one.low <= self.truth <= one.high for one in intervals])
            bias = 100 * (np.mean([one.value for one in intervals]) - self.truth)
            width = 100 * np.mean([one.high - one.low for one in intervals])
            cells += [f"{covered:.1%}", f"{bias:+.2f}", f"{width:.2f}"]
        return " | ".join(cells)


def propensities_of(scores: FloatArray, exploration: Exploration) -> FloatArray:
    """Return the probability of each choice by the highest score, with exploration, [n, experts]."""
    names = [str(column) for column in range(scores.shape[1])]
    found = np.zeros(scores.shape)
    for row, each in enumerate(scores.tolist()):
        named = dict(zip(names, each, strict=True))
        chosen = max(names, key=named.__getitem__)
        for name, probability in draw(
            exploration, str(row), chosen=chosen, scores=named, eligible=names
        ).propensities.items():
            found[row, int(name)] = probability
    return found


def drawn(propensities: FloatArray, rng: np.random.Generator) -> IntArray:
    """Return a column for each row, drawn with these probabilities."""
    thresholds = propensities.cumsum(axis=1)
    # The last threshold may round to just below 1.
    thresholds[:, -1] = 1.0
    found: IntArray = (rng.random(len(propensities))[:, None] < thresholds).argmax(axis=1)
    return found


def population(outcomes: Recorded, methods: tuple[str, ...]) -> Population:
    """Train policies on half of the queries, and return the other half with their choices."""
    complete = outcomes.dataset.complete()
    data, embeddings = outcomes.dataset.take(complete), outcomes.embeddings[complete]
    inside, outside = split_by_query(data.texts, fraction=0.5, seed=0)
    batch = QueryBatch(data.texts, embeddings).take(outside)
    scores = {
        name: train(data.take(inside), embeddings[inside], outcomes.encoder, method=name).score(batch).quality
        for name in (IN_EFFECT, *methods)
    }
    return Population(
        data.quality[outside],
        components(embeddings[outside]),
        scores[IN_EFFECT],
        {name: values.argmax(axis=1) for name, values in scores.items()},
    )


def simulate(world: Population, exploration: Exploration, *, logs: int, decisions: int) -> dict[str, Tally]:
    """Return the estimates of every policy over many logs with the seeds 0, 1 and so on."""
    propensities = world.propensities(exploration)
    tallies = {name: Tally(world.value(name)) for name in world.choices}
    for seed in range(logs):
        rows, evidence = world.log(propensities, decisions, np.random.default_rng(seed))
        # Logs without exploration are not judged, whatever a model predicts.
        predicted = cross_fitted(evidence) if evidence.explored else np.zeros(evidence.propensities.shape)
        for name, tally in tallies.items():
            found = estimate(evidence, world.choices[name][rows], predicted)
            tally.effective.append(found.effective_n)
            tally.unsupported.append(found.unsupported)
            if found.doubly_robust is None or found.inverse_propensity is None:
                tally.obstacles.append(found.obstacle or Obstacle.NO_REWARD)
                continue
            tally.robust.append(found.doubly_robust)
            tally.inverse.append(found.inverse_propensity)
        if seed % 100 == 99:
            print(f"share {exploration.share}: {seed + 1} logs", file=sys.stderr, flush=True)
    return tallies


def main() -> None:
    """Print the table of one set of outcomes."""
    parser = arguments(__doc__ or "")
    parser.add_argument("name", choices=SETS)
    parser.add_argument("--logs", type=int, default=1000)
    parser.add_argument("--decisions", type=int, default=5000, help="decisions of each log")
    parser.add_argument("--shares", default="0,0.02,0.05,0.2", help="explored shares, separated by commas")
    parser.add_argument("--floor", type=float, default=0.9, help="quality floor of the draw")
    parser.add_argument("--encoder", default="static", help="of the queries")
    parser.add_argument("--methods", default=",".join(CANDIDATES), help="of the policies to judge")
    options = parser.parse_args()
    file, left_out = SETS[options.name]
    outcomes = recorded(options.data, file, encoder_name=options.encoder)
    names = [name for name in outcomes.dataset.pool.names if any(part in name.lower() for part in left_out)]
    world = population(outcomes.without(names), tuple(options.methods.split(",")))
    print(
        f"### {options.name}: {options.logs} logs of {options.decisions} decisions by {IN_EFFECT}, quality "
        f"floor {options.floor}\n\n"
        "| explored | policy | true value | effective n | unsupported | not judged "
        "| DR: covered | bias, points"
        " | width | IPS: covered | bias, points | width |\n" + "|---" * 12 + "|"
    )
    for share in map(float, options.shares.split(",")):
        exploration = Exploration(share, options.floor)
        tallies = simulate(world, exploration, logs=options.logs, decisions=options.decisions)
        for name, tally in tallies.items():
            print(f"| {share:.0%} | {name} | {tally.truth:.4f} | {tally.cells()} |", flush=True)


if __name__ == "__main__":
    main()
