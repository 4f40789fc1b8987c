"""The commands that make and evaluate policies: train, evaluate, compare, add-expert."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from router.cli.inputs import (
    add_choice_of_experts,
    add_outcomes,
    count,
    embed,
    encoder_of,
    encoders_of,
    mapping_of,
    names,
    outcomes_of,
    plans_of,
    recipes_of,
    share,
    show_step,
)
from router.data.dataset import Dataset, clear_of
from router.errors import InputError
from router.files import require_absent
from router.policy import Policy

if TYPE_CHECKING:
    from router.methods.shrunk import Target
    from router.training.encoder_choice import Encoded


def add_commands(commands: Any) -> None:
    """Register the commands with argparse's subparsers."""
    train = commands.add_parser("train", help="make a policy from outcomes")
    add_outcomes(train)
    add_choice_of_experts(train)
    train.add_argument("--method", default="auto", help="knn, linear, …; the default picks and blends")
    train.add_argument(
        "--encoder",
        default="auto",
        help="`auto` takes the static one unless out of fold the transformer decides better; `static`; "
        "`default`, the transformer; a folder or a hub id of either kind, with safetensors",
    )
    train.add_argument("--recipe", type=Path, help="YAML or JSON with the method's parameters")
    train.add_argument(
        "--split", help="train on this split only; left out, on `train` where there is one, else on all"
    )
    train.add_argument(
        "--plans",
        default="auto",
        help="`auto` keeps the few plans whose gain is certain, where responses are recorded; `none`; or a "
        "YAML file of plans",
    )
    train.add_argument(
        "--prior",
        type=Path,
        help="a policy that `start` made over the same experts: few outcomes are shrunk to it; "
        "its encoder is taken",
    )
    train.add_argument("--out", required=True, type=Path, help="the policy folder to make")
    train.add_argument("--json", action="store_true", help="print policy_id and metrics")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="evaluate a policy on outcomes")
    evaluate.add_argument("--policy", required=True, type=Path, help="the policy folder")
    add_outcomes(evaluate)
    evaluate.add_argument("--split", help="only the queries of this split")
    evaluate.add_argument("--out", required=True, type=Path, help="folder for report.json, .md and pictures")
    evaluate.add_argument(
        "--examples", type=count, help="queries of each task that report.json holds as text; default: none"
    )
    evaluate.add_argument("--json", action="store_true", help="print report.json")
    evaluate.set_defaults(run=_evaluate)

    compare = commands.add_parser("compare", help="several methods on the same splits: one table, one plot")
    add_outcomes(compare)
    add_choice_of_experts(compare)
    compare.add_argument("--methods", required=True, help="names, separated by commas")
    compare.add_argument(
        "--encoders", default="static", help="names as for `train --encoder`, separated by commas"
    )
    compare.add_argument("--recipes", type=Path, help="YAML or JSON: method → its parameters")
    compare.add_argument(
        "--splits", type=count, default=1, help="how many random splits (seeds seed, seed+1, …)"
    )
    compare.add_argument("--test-fraction", type=share, default=0.3, help="share of the queries to test on")
    compare.add_argument(
        "--split",
        help="compare within this split only; left out, within `train` where there is one, else on all: "
        "a method chosen on test queries would look too good on them",
    )
    compare.add_argument(
        "--plans", default="none", help="as for `train`; left out, methods are compared without plans"
    )
    compare.add_argument("--out", required=True, type=Path, help="folder for the table and the plot")
    compare.add_argument("--json", action="store_true", help="print comparison.json")
    compare.set_defaults(run=_compare)

    added = commands.add_parser("add-expert", help="a new expert from a few probes, no retraining")
    added.add_argument("--policy", required=True, type=Path, help="the policy to extend")
    add_outcomes(added)
    added.add_argument("--expert", required=True, help="the expert to add; its outcomes are among them")
    added.add_argument(
        "--model",
        help="its model, a hub id, a folder or an API's name, for its prior; default: the expert's name",
    )
    added.add_argument("--out", required=True, type=Path, help="the policy folder to make")
    added.add_argument("--json", action="store_true", help="print policy_id and facts")
    added.set_defaults(run=_add_expert)


def _train(options: argparse.Namespace) -> int:
    from router.training.card import card
    from router.training.encoder_choice import train_choosing
    from router.training.train import check_trainable

    require_absent(options.out)  # before long work, not after it
    params, plans = mapping_of(options.recipe), plans_of(options.plans)
    dataset = _part_to_train_on(_of_experts(options), options.split)
    check_trainable(dataset, method=options.method, params=params)
    if options.prior is None:
        encoded, target = encoders_of(options.encoder, dataset.texts), None
    else:
        encoded, target = _target(options, dataset)
    policy = train_choosing(
        dataset,
        encoded,
        method=options.method,
        params=params,
        seed=options.seed,
        plans=plans,
        target=target,
        notify=show_step,
    )
    policy = policy.save(options.out, card(policy))
    _print_policy(options, policy)
    return 0


def _target(options: argparse.Namespace, dataset: Dataset) -> "tuple[list[Encoded], Target]":
    """The prior's encoder with its embeddings, and what the prior expects."""
    from router.priors.abilities import ability_prior
    from router.priors.start import experts_of
    from router.priors.target import target
    from router.priors.update import Belief
    from router.training.encoder_choice import Encoded
    from router.training.fitting import fold_of

    if options.encoder != "auto":
        raise InputError("--prior and --encoder exclude each other: the prior's encoder is taken")
    policy = Policy.load(options.prior)
    embeddings = embed(encoder_of(policy.encoder), dataset.texts)
    belief = Belief.of(ability_prior().of([expert.facts for expert in experts_of(policy)]))
    folds = fold_of(dataset.texts, seed=options.seed)
    return [Encoded(policy.encoder, embeddings)], target(policy, belief, dataset, embeddings, folds)


def _evaluate(options: argparse.Namespace) -> int:
    from router.evaluation.evaluate import judge, report
    from router.evaluation.examples import examples
    from router.evaluation.plots import require_matplotlib
    from router.evaluation.report import as_json, as_markdown, write_report

    require_matplotlib()
    policy = Policy.load(options.policy)
    dataset = outcomes_of(options, policy.pool)
    if options.split:
        dataset = dataset.take(dataset.split_rows(options.split))
    encoder = encoder_of(policy.encoder)
    evaluated = judge(policy, dataset, embed(encoder, dataset.texts))
    figures = report(evaluated)
    if options.examples:
        figures["examples"] = examples(evaluated, options.examples)
    write_report(options.out, evaluated, figures)
    print(as_json(figures) if options.json else as_markdown(figures))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from router.evaluation.comparison import as_markdown, check_comparable, compare, write_comparison
    from router.evaluation.plots import require_matplotlib
    from router.evaluation.report import as_json

    require_matplotlib()
    methods = names(options.methods, "--methods")
    params = recipes_of(options.recipes)
    dataset = _part_to_train_on(_of_experts(options), options.split)
    arguments: dict[str, Any] = {
        "methods": methods,
        "seeds": range(options.seed, options.seed + options.splits),
        "test_fraction": options.test_fraction,
        "params": params,
    }
    plans = plans_of(options.plans)
    check_comparable(dataset, **arguments)
    encoders = {name: encoders_of(name, dataset.texts) for name in names(options.encoders, "--encoders")}
    found = compare(dataset, encoders, **arguments, plans=plans, notify=show_step)
    write_comparison(options.out, found)
    print(as_json(found) if options.json else as_markdown(found))
    return 0


def _add_expert(options: argparse.Namespace) -> int:
    from router.training.add_expert import add_expert
    from router.training.card import card

    require_absent(options.out)  # before long work, not after it
    policy = Policy.load(options.policy)
    probes = outcomes_of(options)
    encoder = encoder_of(policy.encoder)
    expected = _expected(policy, probes, options)
    grown = add_expert(policy, probes, embed(encoder, probes.texts), name=options.expert, expected=expected)
    grown = grown.save(options.out, card(grown, _note_of_probes(policy, options.expert, grown)))
    _print_policy(options, grown)
    return 0


def _expected(policy: Policy, probes: Dataset, options: argparse.Namespace) -> tuple[float, float] | None:
    """The new expert's mean quality by its prior, with its variance; `None` where its model is not known."""
    from router.priors.abilities import ability_prior
    from router.priors.added import expected_mean
    from router.priors.catalogue import load_catalogue
    from router.priors.start import basis_of, experts_of, started

    if options.expert not in probes.pool:
        return None
    new = started(probes.pool[options.expert], options.model)
    if basis_of(new.facts, load_catalogue()).origin == "nothing":
        return None
    mean, variance = expected_mean(ability_prior(), experts_of(policy), policy.means[: len(policy.pool)], new)
    show_step(f"{options.expert}: expected mean quality {mean:.2f} ± {variance**0.5:.2f} by its prior")
    return mean, variance


def _note_of_probes(before: Policy, name: str, grown: Policy) -> list[str]:
    facts = grown.training["added"][-1]
    return [
        "",
        "## Added experts",
        "",
        f"- {name} was added to policy {before.policy_id} from {facts['n_probes']} probes, "
        f"mean quality {facts['mean']:.4f}.",
    ]


def _of_experts(options: argparse.Namespace) -> Dataset:
    dataset = outcomes_of(options)
    return dataset.only(names(options.experts, "--experts")) if options.experts else dataset


def _part_to_train_on(dataset: Dataset, split: str | None) -> Dataset:
    """A named split, without queries that another split holds too: those would leak."""
    if split is None:
        if "train" not in (dataset.splits or ()):
            return dataset
        split = "train"
    rows = dataset.split_rows(split)
    others = np.setdiff1d(np.arange(len(dataset)), rows)
    kept = clear_of(dataset, rows, others)
    left_out = f"; {len(rows) - len(kept)} left out, for another split holds the same query"
    show_step(f"split {split!r}: {len(kept)} of {len(dataset)} queries" + left_out * (len(kept) < len(rows)))
    return dataset.take(kept)


def _print_policy(options: argparse.Namespace, policy: Policy) -> None:
    if options.json:
        facts = {
            "policy_id": policy.policy_id,
            "method": policy.method.name,
            "experts": list(policy.pool.names),
            "plans": [] if policy.plans is None else list(policy.plans.names),
            "preferences": {"cost_weight": policy.preferences.cost_weight},
            "metrics": policy.training.get("metrics"),
        }
        print(json.dumps(facts, indent=2))
    else:
        experts = ", ".join(policy.candidates)
        print(f"{options.out}: policy {policy.policy_id} ({policy.method.name}) over {experts}")
