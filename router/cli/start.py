"""The command `start`: a policy before any data, and with `--probe` from a few outcomes.

The serving packages add `--config` to it, and hand over plain values.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.cli.inputs import count, encoder_of, mapping_of, not_negative, seconds, seed
from router.cli.probing import Generator, fresh, probed, reported
from router.errors import InputError, PoolError
from router.experts import ExpertProfile, Price
from router.files import require_absent
from router.policy import Policy

if TYPE_CHECKING:
    from router.priors.start import StartExpert

SECONDS_PER_HOUR = 3600.0
OWN_KEYS = ("model", "tokens_per_s", "gpus")
"""Keys of an expert in the file of `--experts` beside those of a pool file."""


def add_commands(commands: Any) -> None:
    """Register the command with argparse's subparsers."""
    start = commands.add_parser("start", help="a policy before any data, from what is known of the models")
    start.add_argument(
        "--experts",
        type=Path,
        help="experts.yaml as for `train --pool`; each may also have `model`, `tokens_per_s`, `gpus`",
    )
    start.add_argument(
        "--gpu-usd-per-hour",
        type=not_negative,
        help="price of a GPU, for experts without a price: needs `tokens_per_s` of each in --experts",
    )
    start.add_argument("--encoder", default="static", help="`static`, `default`, a folder, or a hub id")
    start.add_argument("--out", required=True, type=Path, help="the policy folder to make")
    start.add_argument("--json", action="store_true", help="print policy_id and the prior of each expert")
    probe = start.add_argument_group("probing")
    probe.add_argument(
        "--probe",
        action="store_true",
        help="measure the running experts on queries with checkable answers; without --experts and --config "
        "those that the endpoint lists",
    )
    probe.add_argument("--count", type=count, default=200, help="number of probes")
    probe.add_argument("--endpoint", default="http://127.0.0.1:8000/v1", help="where the experts run")
    probe.add_argument(
        "--queries", type=Path, help="own queries as for `collect`, with `reference`, or with --judge"
    )
    probe.add_argument("--judge", help="the expert that grades responses without a reference")
    probe.add_argument("--budget-usd", type=not_negative, help="fewer probes where they could cost more")
    probe.add_argument("--max-tokens", type=count, default=512, help="completion tokens of a probe at most")
    probe.add_argument("--concurrency", type=count, default=8, help="requests in flight")
    probe.add_argument("--timeout-s", type=seconds, default=120.0, help="deadline of one request")
    probe.add_argument("--key-env", default="TO_ROUTER_API_KEY", help="environment variable with the key")
    probe.add_argument(
        "--outcomes",
        type=Path,
        help="JSONL of the outcomes; default: beside --out; continued where it exists",
    )
    probe.add_argument(
        "--generator",
        help="fresh probes by this generator: `reasoning-gym` (extra `probes`), `pocket`; or `shipped`; "
        "default: the pocket experts' own for a graph of them, else the shipped ones",
    )
    probe.add_argument("--seed", type=seed, default=0, help="of the generator: a whole number from 0")
    generators = {"reasoning-gym": Generator(fresh, lambda experts: False)}
    start.set_defaults(run=_start, experts_of=experts_of_file, generators=generators)


def _start(options: argparse.Namespace) -> int:
    from router.priors.abilities import ability_prior
    from router.priors.card import card
    from router.priors.catalogue import load_catalogue
    from router.priors.probes import load_probes
    from router.priors.start import prior_policy

    require_absent(options.out)
    read: Callable[[argparse.Namespace], list[StartExpert]] = options.experts_of
    experts, catalogue, prior = read(options), load_catalogue(), ability_prior()
    if options.probe:
        experts = reported(options, experts)
    encoder = encoder_of(options.encoder)
    policy = prior_policy(experts, encoder, prior=prior, catalogue=catalogue, probes=load_probes())
    _warn(policy)
    if options.probe:
        policy = probed(options, policy, prior, experts, encoder)
    policy = policy.save(options.out, card(policy, catalogue))
    if options.json:
        about = {name: policy.training[name] for name in ("prior", "n_queries")}
        names = list(policy.pool.names)
        print(json.dumps({"policy_id": policy.policy_id, "experts": names, **about}, indent=2))
    else:
        measured = policy.training["n_queries"]
        print(
            f"{options.out}: policy {policy.policy_id} (prior, {measured} probes) "
            f"over {', '.join(policy.pool.names)}; best single: {policy.training['best_single']}"
        )
    return 0


def _warn(policy: Policy) -> None:
    for name, about in policy.training["prior"].items():
        if about["origin"] == "nothing":
            print(f"{name}: nothing is known of {about['model']!r}, its interval is wide", file=sys.stderr)
    if unpriced := [expert.name for expert in policy.pool if expert.price is None]:
        print(f"no price is known of {', '.join(unpriced)}: costs do not count for them", file=sys.stderr)


def experts_of_file(options: argparse.Namespace) -> "list[StartExpert]":
    """The experts that `--experts` names; none where they are to be read from the endpoint that is probed.

    Raises:
        InputError: no file is named and nothing is probed, or it cannot be read.
        PoolError: an expert is invalid.
    """
    if options.experts is None and options.probe:
        return []
    if options.experts is None:
        raise InputError("name the experts: --experts FILE, or where serving is installed --config FILE")
    entries = mapping_of(options.experts).get("experts")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise PoolError(f"{options.experts} must hold a list `experts` of objects with `name`")
    return [_expert(entry, options.gpu_usd_per_hour) for entry in entries]


def _expert(entry: Mapping[str, Any], gpu_usd_per_hour: float | None) -> "StartExpert":
    from router.priors.start import started

    model, speed, gpus = (entry.get(key) for key in OWN_KEYS)
    plain = {key: value for key, value in entry.items() if key not in OWN_KEYS}
    if plain.get("price_per_mtok") is None and gpu_usd_per_hour is not None and speed is not None:
        plain["price_per_mtok"] = price_of_time(gpu_usd_per_hour, speed, 1 if gpus is None else gpus)
    profile = ExpertProfile.from_json(plain)
    if model is not None and not isinstance(model, str):
        raise PoolError(f"expert {profile.name!r}: model must be a text, found {model!r:.80}")
    return started(profile, model)


def price_of_time(usd_per_hour: float, tokens_per_s: Any, gpus: Any) -> dict[str, float]:
    """The price of a model on own GPUs: those of its completion tokens, prompts being nearly free.

    Raises:
        PoolError: a number is not above 0.
    """
    for what, value in (("tokens_per_s", tokens_per_s), ("gpus", gpus)):
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise PoolError(f"{what} must be a number above 0, found {value!r:.80}")
    output = usd_per_hour * gpus / (tokens_per_s * SECONDS_PER_HOUR) * 1e6
    price = Price(0.0, output)
    return {"input": price.input, "output": price.output}
