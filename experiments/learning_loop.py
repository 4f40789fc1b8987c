"""Does a policy get better from its own traffic, and what does exploration cost?

A policy is trained on 500 queries; then 10,000 requests are simulated, a tenth of whose answers get a noisy
label. After each 2,000 a policy is learned from the earlier labels, and takes effect only if the later ones
prove it better. Beside it: a policy with the complete outcomes of the same queries.

python -m experiments.learning_loop mmlupro10 --data FOLDER [--splits 3] [--shares 0.02,0.05]
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from experiments.data import Recorded, arguments, hide, mean_and_spread, recorded
from experiments.off_policy import drawn, propensities_of
from router.core import Exploration, FloatArray, IntArray, QueryBatch
from router.data.dataset import Dataset, split_by_query
from router.learning.estimators import estimate
from router.learning.evidence import Evidence
from router.learning.gates import alpha_of, passes
from router.learning.learn import TRAINED_SHARE
from router.learning.reward_model import components, cross_fitted
from router.policy import Policy
from router.training.train import train

FIRST, STEP, STEPS = 500, 2000, 5
LABELLED = 0.1
WRONG = 0.1
"""Share of labels that are the opposite of the truth."""
TESTED = 0.3


@dataclass
class Step:
    """One step of the loop, over the splits."""

    in_effect: list[float] = field(default_factory=list)
    learned: list[float] = field(default_factory=list)
    complete: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    """What exploration cost in this step, in points."""
    verdicts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Labels:
    """Labelled requests, in the order of time."""

    rows: IntArray
    actions: IntArray
    propensities: FloatArray
    rewards: FloatArray
    version: IntArray
    """Of the policy that decided: 0 for the first one."""

    @classmethod
    def joined(cls, parts: Sequence["Labels"]) -> "Labels":
        """Return the labels of several steps as one."""
        names = ("rows", "actions", "propensities", "rewards", "version")
        return cls(**{name: np.concatenate([getattr(one, name) for one in parts]) for name in names})

    def take(self, rows: IntArray) -> "Labels":
        """Return these rows only."""
        return Labels(
            self.rows[rows],
            self.actions[rows],
            self.propensities[rows],
            self.rewards[rows],
            self.version[rows],
        )


class Loop:
    """One split of the recorded outcomes, and the policy in effect."""

    def __init__(self, outcomes: Recorded, *, method: str, share: float, seed: int) -> None:
        complete = outcomes.dataset.complete()
        self.data, self.embeddings = outcomes.dataset.take(complete), outcomes.embeddings[complete]
        self.encoder, self.method, self.seed = outcomes.encoder, method, seed
        self.rng = np.random.default_rng(seed)
        self.exploration = Exploration(share)
        inside, self.tested = split_by_query(self.data.texts, fraction=TESTED, seed=seed)
        self.first, self.stream = np.split(self.rng.permutation(inside), [FIRST])
        self.features = components(self.embeddings)
        self.policy = self._train(self.data.take(self.first), self.first)
        self.version, self.gates = 0, 0
        self.labels: list[Labels] = []

    def serve(self) -> float:
        """Serve the requests of one step; returns what exploration cost, in points."""
        rows = self.rng.choice(self.stream, size=STEP)
        scores = self._scores(self.policy, rows)
        propensities = propensities_of(scores, self.exploration)
        actions = drawn(propensities, self.rng)
        quality, each = self.data.quality[rows], np.arange(STEP)
        cost = quality[each, propensities.argmax(axis=1)].mean() - (propensities * quality).sum(axis=1).mean()
        labelled = np.flatnonzero(self.rng.random(STEP) < LABELLED)
        truth = quality[labelled, actions[labelled]]
        wrong = self.rng.random(len(labelled)) < WRONG
        self.labels.append(
            Labels(
                rows[labelled],
                actions[labelled],
                propensities[labelled],
                np.where(wrong, 1 - truth, truth),
                np.full(len(labelled), self.version),
            )
        )
        return 100 * float(cost)

    def learn(self) -> tuple[float, float, str]:
        """Learn from all labels; returns the quality of it, that with complete outcomes, and the verdict."""
        labels = Labels.joined(self.labels)
        bar = int(len(labels.rows) * TRAINED_SHARE)
        earlier = labels.take(np.arange(bar))
        later = labels.take(np.arange(bar, len(labels.rows)))
        learned = self._train(*self._with_gaps(earlier))
        rows = np.unique(np.concatenate([self.first, earlier.rows]))
        complete = self._train(self.data.take(rows), rows)
        # A query that was trained on proves nothing, and a gate is of one policy in effect.
        kept = np.flatnonzero(~np.isin(later.rows, rows) & (later.version == self.version))
        verdict = self._gate(learned, later.take(kept))
        return self.quality(learned), self.quality(complete), verdict

    def quality(self, policy: Policy) -> float:
        """Return the true quality of a policy on the tested queries."""
        chosen = self._scores(policy, self.tested).argmax(axis=1)
        return float(self.data.quality[self.tested, chosen].mean())

    def _gate(self, learned: Policy, later: Labels) -> str:
        alpha = alpha_of(self.gates)
        self.gates += 1
        evidence = Evidence(
            actions=later.actions,
            propensities=later.propensities,
            rewards=later.rewards,
            units=np.arange(len(later.rows)),
            features=self.features[later.rows],
            weights=np.ones(len(later.rows)),
        )
        chosen = self._scores(learned, later.rows).argmax(axis=1)
        found = estimate(evidence, chosen, cross_fitted(evidence), alpha=2 * alpha)
        if not passes(found):
            return str(found.obstacle or "not proven")
        self.policy, self.version = learned, self.version + 1
        return "kept"

    def _with_gaps(self, labels: Labels) -> tuple[Dataset, IntArray]:
        """Return the first queries with all outcomes, and the labelled ones with what was labelled."""
        rows = np.unique(labels.rows)
        shape = (len(rows), len(self.data.pool))
        total, count = np.zeros(shape), np.zeros(shape)
        at = np.searchsorted(rows, labels.rows)
        np.add.at(total, (at, labels.actions), labels.rewards)
        np.add.at(count, (at, labels.actions), 1)
        rows = np.concatenate([self.first, rows])
        seen = np.concatenate([np.ones((FIRST, shape[1]), bool), count > 0])
        part = hide(self.data.take(rows), seen)
        quality = part.quality.copy()
        quality[FIRST:] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return replace(part, measured={**part.measured, "quality": quality}), rows

    def _train(self, part: Dataset, rows: IntArray) -> Policy:
        return train(part, self.embeddings[rows], self.encoder, method=self.method, seed=self.seed)

    def _scores(self, policy: Policy, rows: IntArray) -> FloatArray:
        texts = tuple(self.data.texts[int(row)] for row in rows)
        return policy.score(QueryBatch(texts, self.embeddings[rows])).quality


def main() -> None:
    """Print the table of one set of outcomes."""
    parser = arguments(__doc__ or "", splits=3)
    parser.add_argument("name", choices=("mmlupro10",))
    parser.add_argument("--encoder", default="static", help="of the queries")
    parser.add_argument("--method", default="linear")
    parser.add_argument("--shares", default="0.02,0.05", help="explored shares, separated by commas")
    options = parser.parse_args()
    outcomes = recorded(options.data, options.name, encoder_name=options.encoder)
    print(
        f"### {options.name}: {options.method}, {options.splits} splits\n\n"
        "| explored | requests | policy in effect | learned | with complete outcomes | exploration's cost, "
        "points | gate |\n" + "|---" * 7 + "|"
    )
    for share in map(float, options.shares.split(",")):
        steps = [Step() for _ in range(STEPS)]
        for seed in range(options.splits):
            loop = Loop(outcomes, method=options.method, share=share, seed=seed)
            first = loop.quality(loop.policy)
            for number, step in enumerate(steps):
                print(f"share {share}, split {seed}, step {number}", file=sys.stderr, flush=True)
                step.cost.append(loop.serve())
                learned, complete, verdict = loop.learn()
                step.learned.append(learned)
                step.complete.append(complete)
                step.in_effect.append(loop.quality(loop.policy))
                step.verdicts.append(verdict)
            print(f"split {seed}: the first policy has {first:.4f}", file=sys.stderr)
        for number, step in enumerate(steps):
            gates = ", ".join(f"{step.verdicts.count(one)} {one}" for one in sorted(set(step.verdicts)))
            print(
                f"| {share:.0%} | {STEP * (number + 1)} | {mean_and_spread(step.in_effect)} "
                f"| {mean_and_spread(step.learned)} | {mean_and_spread(step.complete)} "
                f"| {np.mean(step.cost):.2f} | {gates} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
