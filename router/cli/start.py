"""The command `start`: a policy before any data.

The serving packages add `--config` to it, and hand over plain values.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.cli.inputs import encoder_of, mapping_of, not_negative
from router.errors import InputError, PoolError
from router.experts import ExpertProfile, Price
from router.files import require_absent

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
    start.add_argument("--encoder", default="default", help="`default`, a folder, or a hub id")
    start.add_argument("--out", required=True, type=Path, help="the policy folder to make")
    start.add_argument("--json", action="store_true", help="print policy_id and the prior of each expert")
    start.set_defaults(run=_start, experts_of=experts_of_file)


def _start(options: argparse.Namespace) -> int:
    from router.priors.abilities import ability_prior
    from router.priors.card import card
    from router.priors.catalogue import load_catalogue
    from router.priors.probes import load_probes
    from router.priors.start import prior_policy

    require_absent(options.out)
    read: Callable[[argparse.Namespace], list[StartExpert]] = options.experts_of
    experts, catalogue = read(options), load_catalogue()
    policy = prior_policy(
        experts,
        encoder_of(options.encoder),
        prior=ability_prior(),
        catalogue=catalogue,
        probes=load_probes(),
    )
    policy = policy.save(options.out, card(policy, catalogue))
    prior = policy.training["prior"]
    for name, about in prior.items():
        if about["origin"] == "nothing":
            print(f"{name}: nothing is known of {about['model']!r}, its interval is wide", file=sys.stderr)
    unpriced = [expert.name for expert in policy.pool if expert.price is None]
    if unpriced:
        print(f"no price is known of {', '.join(unpriced)}: costs do not count for them", file=sys.stderr)
    if options.json:
        facts = {"policy_id": policy.policy_id, "experts": list(policy.pool.names), "prior": prior}
        print(json.dumps(facts, indent=2))
    else:
        print(
            f"{options.out}: policy {policy.policy_id} (prior) over {', '.join(policy.pool.names)}; "
            f"best single by the prior: {policy.training['best_single']}"
        )
    return 0


def experts_of_file(options: argparse.Namespace) -> "list[StartExpert]":
    """The experts that `--experts` names.

    Raises:
        InputError: no file is named, or it cannot be read.
        PoolError: an expert is invalid.
    """
    if options.experts is None:
        raise InputError(
            "name the experts: --experts FILE, or --config serve_config.yaml where serving is installed"
        )
    entries = mapping_of(options.experts).get("experts")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise PoolError(f"{options.experts} must hold a list `experts` of objects with `name`")
    return [_expert(entry, options.gpu_usd_per_hour) for entry in entries]


def _expert(entry: Mapping[str, Any], gpu_usd_per_hour: float | None) -> "StartExpert":
    from router.priors.start import StartExpert

    model, speed, gpus = (entry.get(key) for key in OWN_KEYS)
    plain = {key: value for key, value in entry.items() if key not in OWN_KEYS}
    if plain.get("price_per_mtok") is None and gpu_usd_per_hour is not None and speed is not None:
        plain["price_per_mtok"] = price_of_time(gpu_usd_per_hour, speed, 1 if gpus is None else gpus)
    profile = ExpertProfile.from_json(plain)
    if model is not None and not isinstance(model, str):
        raise PoolError(f"expert {profile.name!r}: model must be a text, found {model!r:.80}")
    named = model or profile.name
    return StartExpert(profile, named, config_of(Path(named)))


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


def config_of(folder: Path) -> dict[str, Any] | None:
    """The `config.json` of a model's folder; `None` where there is no such folder."""
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON: {error}") from error
    return data if isinstance(data, dict) else None
