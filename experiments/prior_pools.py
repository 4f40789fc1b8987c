"""Policies from priors on recorded pools, as if they were a new user's: `python -m experiments.prior_pools`.

The pool's own outcomes are left out of the catalogue and the models are renamed, so that only facts remain;
both also apart. Then with 50, 100 and 200 probes, of the same and of other families of tasks. Every run is
written as it ends: the same command with the same `--out` goes on from there.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data import Recorded, arguments
from experiments.prior_tables import KEY, Run, tables
from router.core import FloatArray, IntArray, Preferences, QueryBatch
from router.data.dataset import Dataset, split_by_query, to_dataset
from router.data.embeddings import encode_cached
from router.data.outcomes import checked, read_rows
from router.decide import decide
from router.encoders import EncoderSpec, load_encoder
from router.evaluation.evaluate import EvaluatedPolicy, curve, judge
from router.experts import CandidatePool, ExpertProfile, Price
from router.files import write_atomically
from router.methods.hull import area
from router.methods.prior import PriorRouter
from router.methods.shrunk import Target
from router.policy import Policy
from router.priors.abilities import AbilityPrior
from router.priors.catalogue import KINDS, Catalogue, load_catalogue
from router.priors.facts import Facts
from router.priors.probes import load_probes
from router.priors.start import StartExpert, prior_policy
from router.priors.target import target
from router.priors.update import Belief, allocation, updated
from router.training.fitting import fold_of
from router.training.train import train_experts

PROBES = (50, 100, 200)
OWN = (50, 200)
"""Outcomes of small trainings, with and without the prior."""


Candidate = tuple[str, Callable[[], EvaluatedPolicy]]
"""What a policy is called, and the call that makes and judges it."""


class UserPool(NamedTuple):
    """A recorded set as a user's pool."""

    outcomes: str
    benchmarks: tuple[str, ...]
    """Prefixes of its benchmarks in the catalogue."""
    excluded: str | None = None


POOLS = {
    "mmlupro10": UserPool("mmlupro10", ("mmlu-pro-",)),
    "mmlupro8": UserPool("mmlupro10", ("mmlu-pro-",), "gemini"),
    "zeroeval27": UserPool("zeroeval28", ("zeroeval-gsm", "zeroeval-math", "zeroeval-crux"), "o1-mini"),
    "reasoninggym7": UserPool("reasoninggym7", ("reasoning-gym-",)),
}
CONDITIONS = {
    "left out and renamed": (True, True),
    "left out": (True, False),
    "renamed": (False, True),
}
"""Condition → (whether the pool's own outcomes are left out, whether the models are renamed)."""


class Renamed(StartExpert):
    """An expert whose name says nothing: its facts without the name."""

    @property
    def facts(self) -> Facts:
        return super().facts.nameless()


class Encoded:
    """The embeddings of the examples, made once."""

    def __init__(self, spec: EncoderSpec, encode: Callable[[Sequence[str]], FloatArray]) -> None:
        self.spec = spec
        self._encode = encode
        self._known: dict[tuple[str, ...], FloatArray] = {}

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embeddings of texts."""
        if tuple(texts) not in self._known:
            self._known[tuple(texts)] = self._encode(texts)
        return self._known[tuple(texts)]


def main() -> None:
    """Print the tables, and write the figures of every run."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--pools", default=",".join(POOLS), help="names, separated by commas")
    parser.add_argument("--conditions", default=",".join(CONDITIONS), help="names, separated by commas")
    parser.add_argument("--out", type=Path, help="JSON file of every run's figures")
    parser.add_argument("--first-seed", type=int, default=0, help="of the splits; others are for choices")
    parser.add_argument("--without-training", action="store_true", help="leave training out")
    options = parser.parse_args()
    runtime = load_encoder("static")
    encoder = Encoded(runtime.spec, runtime.encode)
    runs = Runs(options.out)
    for name in options.pools.split(","):
        pool = POOLS[name]
        outcomes = first_samples(options.data, pool.outcomes, encoder)
        drop = [one for one in outcomes.dataset.pool.names if pool.excluded and pool.excluded in one.lower()]
        outcomes = priced(outcomes.without(drop))
        for condition in options.conditions.split(","):
            left_out, renamed = CONDITIONS[condition]
            catalogue = load_catalogue()
            catalogue = catalogue.without(pool.benchmarks) if left_out else catalogue
            prior = AbilityPrior.fit(catalogue)
            for seed in range(options.first_seed, options.first_seed + options.splits):
                about = {"pool": name, "condition": condition, "seed": seed}
                for families in ("same", "other"):
                    user = one_user(
                        outcomes,
                        encoder,
                        catalogue,
                        prior,
                        renamed=renamed,
                        seed=seed,
                        families=families,
                        training=not options.without_training and condition == next(iter(CONDITIONS)),
                    )
                    runs.take(about | {"families": families}, user)
                print(f"{name}, {condition}, seed {seed}", file=sys.stderr, flush=True)
    print(tables(runs.all))


class Runs:
    """Figures of runs, kept in a file as they come."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        stored = json.loads(file.read_text("utf-8")) if file and file.exists() else []
        self._found: dict[tuple[object, ...], Run] = {tuple(run[part] for part in KEY): run for run in stored}

    @property
    def all(self) -> list[Run]:
        """Every run, those of an earlier command too."""
        return list(self._found.values())

    def take(self, about: Run, user: Iterable[Candidate]) -> None:
        """Measure the policies of one user that are not known, the prior's first; `about` has no policy."""
        first: Run | None = None
        for what, judged in user:
            key = tuple((about | {"policy": what})[part] for part in KEY)
            if key not in self._found:
                run = about | {"policy": what} | measured(judged())
                if first is not None:  # beside the single expert that the prior prefers
                    run |= {name: first[name] for name in ("single", "single_usd")}
                self._found[key] = run
                if self._file:
                    write_atomically(self._file, json.dumps(self.all, indent=1) + "\n")
            first = first or self._found[key]


def first_samples(folder: Path, name: str, encoder: Encoded) -> Recorded:
    """The outcomes of a set, of several samples the first, with the embeddings of its queries."""
    rows = [row for row in read_rows(folder / f"{name}.parquet") if not row.get("sample")]
    dataset = to_dataset(checked(rows, name))
    return Recorded(dataset, encode_cached(encoder, dataset.texts), encoder.spec)


def priced(outcomes: Recorded) -> Recorded:
    """The outcomes with each expert's price, as a user configures it: from its costs and tokens."""
    measured, profiles = outcomes.dataset.measured, []
    for column, expert in enumerate(outcomes.dataset.pool):
        rows = np.isfinite(measured["cost_usd"][:, column])
        tokens = np.stack(
            [measured[part][rows, column] for part in ("prompt_tokens", "completion_tokens")], axis=1
        )
        price, *_ = np.linalg.lstsq(tokens, measured["cost_usd"][rows, column] * 1e6, rcond=None)
        profiles.append(ExpertProfile(expert.name, Price(*(round(max(float(p), 0.0), 4) for p in price))))
    return replace(outcomes, dataset=replace(outcomes.dataset, pool=CandidatePool(profiles)))


def one_user(
    outcomes: Recorded,
    encoder: Encoded,
    catalogue: Catalogue,
    prior: AbilityPrior,
    *,
    renamed: bool,
    seed: int,
    families: str,
    training: bool,
) -> Iterator[Candidate]:
    """Every policy on one split: its name, and the call that makes and judges it."""
    inside, outside = split_by_query(outcomes.dataset.texts, fraction=0.3, seed=seed)
    probes = inside
    if families == "other":
        probes, outside = _other_families(outcomes.dataset, inside, outside, seed)
    kind = Renamed if renamed else StartExpert
    experts = [kind(expert, expert.name) for expert in outcomes.dataset.pool]
    policy = prior_policy(experts, encoder, prior=prior, catalogue=catalogue, probes=load_probes())
    test = outcomes.dataset.take(outside), outcomes.embeddings[outside]

    def candidate(what: str, make: Callable[[], Policy]) -> Candidate:
        return what, lambda: judge(make(), *test)

    yield candidate("prior", lambda: policy)
    method = policy.method
    assert isinstance(method, PriorRouter)  # noqa: S101 - prior_policy made it
    belief = Belief.of(prior.of([expert.facts for expert in experts]))
    rng = np.random.default_rng(seed)
    order = rng.permutation(probes)
    for count in PROBES:
        for way in ("random", "chosen"):
            rows = order[:count] if way == "random" else _chosen(method, belief, outcomes, order, count)
            yield candidate(f"{count} {way} probes", partial(_probed, policy, method, belief, outcomes, rows))
    if training and families == "same":
        for count in OWN:
            rows = order[:count]
            yield candidate(f"{count} outcomes, training", partial(_trained, outcomes, rows, seed))
            with_prior = partial(_trained_with_prior, policy, belief, outcomes, rows, seed)
            yield candidate(f"{count} outcomes, training with the prior", with_prior)
        yield candidate("full training", partial(_trained, outcomes, inside, seed))


def _trained(outcomes: Recorded, rows: IntArray, seed: int, aim: Target | None = None) -> Policy:
    policy, *_ = train_experts(
        outcomes.dataset.take(rows),
        outcomes.embeddings[rows],
        outcomes.encoder,
        method="auto",
        seed=seed,
        target=aim,
    )
    return policy


def _trained_with_prior(
    policy: Policy, belief: Belief, outcomes: Recorded, rows: IntArray, seed: int
) -> Policy:
    part = outcomes.dataset.take(rows)
    aim = target(policy, belief, part, outcomes.embeddings[rows], fold_of(part.texts, seed=seed))
    return _trained(outcomes, rows, seed, aim)


def _probed(
    policy: Policy, method: PriorRouter, belief: Belief, outcomes: Recorded, rows: IntArray
) -> Policy:
    part, embeddings = outcomes.dataset.take(rows), outcomes.embeddings[rows]
    after = updated(method, belief, embeddings, part.quality)
    scores = after.score(QueryBatch(part.texts, embeddings))
    return replace(
        policy, method=after, guard=replace(policy.guard, means=scores.mean(axis=0), threshold=-1.0)
    )


def _chosen(method: PriorRouter, belief: Belief, outcomes: Recorded, order: IntArray, count: int) -> IntArray:
    """Probes by the allocation over kinds."""
    kinds = method.membership(outcomes.embeddings[order]).argmax(axis=1)
    available = np.bincount(kinds, minlength=len(KINDS)).astype(float)
    wanted = allocation(belief, count=count, available=available)
    return np.concatenate([order[kinds == kind][:number] for kind, number in enumerate(wanted)])


def _other_families(
    dataset: Dataset, inside: IntArray, outside: IntArray, seed: int
) -> tuple[IntArray, IntArray]:
    """Probes of half of the tasks, tests of the others."""
    tasks = np.array(dataset.tasks)
    names = np.random.default_rng(100 + seed).permutation(sorted(set(dataset.tasks or ())))
    probed = set(names[: max(1, len(names) // 2)].tolist())
    of_probes = np.array([task in probed for task in tasks])
    return inside[of_probes[inside]], outside[~of_probes[outside]]


def measured(judged: EvaluatedPolicy) -> dict[str, object]:
    """Quality at the default preference and at weight 0, AIQ, and the baselines on the same queries."""
    picked, cost = judged.outcome(judged.choices(judged.policy.preferences))
    top, _ = judged.outcome(
        decide(judged.scores, judged.expected, preferences=Preferences(cost_weight=0.0)).best
    )
    points = np.array([[point["cost_usd"], point["quality"]] for point in curve(judged, judged.scores)])
    paid = judged.paid
    assert paid is not None and cost is not None  # noqa: S101, PT018 - the recorded sets have costs
    alone = paid.mean(axis=0)
    low, high = float(alone.min()), float(alone.max())
    zero = area(alone, judged.quality.mean(axis=0), low, high)
    single = judged.policy.pool.column(judged.policy.static_ranking[0])
    return {
        "default": float(picked.mean()),
        "default_usd": float(cost.mean()),
        "best": float(top.mean()),
        "aiq": area(points[:, 0], points[:, 1], low, high),
        "zero_aiq": zero,
        "single": float(judged.quality[:, single].mean()),
        "single_usd": float(alone[single]),
        "top_single": float(judged.quality.mean(axis=0).max()),
        "random": float(judged.quality.mean()),
        "n": len(judged.quality),
        "unfamiliar": float(judged.unfamiliar.mean()),
    }


if __name__ == "__main__":
    main()
