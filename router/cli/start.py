"""The command `start`: a policy before any data, and with `--probe` from a few outcomes.

The serving packages add `--config` to it, and hand over plain values.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.cli.inputs import count, embed, encoder_of, mapping_of, not_negative, progress, seconds
from router.errors import InputError, PoolError
from router.experts import ExpertProfile, Price
from router.files import require_absent
from router.policy import Policy

if TYPE_CHECKING:
    from router.data.outcomes import Row
    from router.priors.abilities import AbilityPrior
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
        "--probe", action="store_true", help="measure the running experts on queries with checkable answers"
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
    start.set_defaults(run=_start, experts_of=experts_of_file)


def _start(options: argparse.Namespace) -> int:
    from router.priors.abilities import ability_prior
    from router.priors.card import card
    from router.priors.catalogue import load_catalogue
    from router.priors.probes import load_probes
    from router.priors.start import prior_policy

    require_absent(options.out)
    read: Callable[[argparse.Namespace], list[StartExpert]] = options.experts_of
    experts, catalogue, prior = read(options), load_catalogue(), ability_prior()
    encoder = encoder_of(options.encoder)
    policy = prior_policy(experts, encoder, prior=prior, catalogue=catalogue, probes=load_probes())
    _warn(policy)
    if options.probe:
        policy = _probed(options, policy, prior, experts, encoder)
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


def _probed(
    options: argparse.Namespace,
    policy: Policy,
    prior: "AbilityPrior",
    experts: "list[StartExpert]",
    encoder: Any,
) -> Policy:
    """The policy after probing: choose, estimate, collect, grade, join."""
    from router.collection.collect import collect
    from router.data.dataset import to_dataset
    from router.data.outcomes import checked, read_rows, write_rows
    from router.priors import probing
    from router.priors.probes import load_probes
    from router.priors.update import Belief

    belief = Belief.of(prior.of([expert.facts for expert in experts]))
    if options.queries is not None:
        queries = _own_queries(options)
    else:
        queries = probing.as_queries(probing.choose(policy, belief, load_probes(), count=options.count))
    queries = _within_budget(options, policy, encoder, queries)
    responses = options.outcomes or options.out.with_name(f"{options.out.name}-responses.jsonl")
    names = list(policy.pool.names)
    with progress(len(queries) * len(names), "probe") as advance:
        done = asyncio.run(
            collect(
                options.endpoint,
                queries,
                names,
                responses,
                api_key=os.environ.get(options.key_env),
                max_tokens=options.max_tokens,
                concurrency=options.concurrency,
                timeout_s=options.timeout_s,
                progress=advance,
            )
        )
    if done.failed:
        failures = f"{len(done.failed)} probes got no response and do not count; the first: {done.failed[0]}"
        print(failures, file=sys.stderr)
    wanted = {query["query_id"]: query for query in queries}
    rows = [row for row in read_rows(responses) if row["query_id"] in wanted and row["expert"] in policy.pool]
    labelled = checked(_graded(options, rows, wanted), str(responses))
    kept = options.out.with_name(f"{options.out.name}-outcomes.parquet")
    write_rows(kept, labelled)
    print(f"{kept}: {len(labelled)} outcomes with responses, for `train` and `plans`", file=sys.stderr)
    outcomes = to_dataset(labelled, pool=policy.pool, where=str(responses))
    return probing.joined(policy, belief, outcomes, embed(encoder, outcomes.texts))


def _own_queries(options: argparse.Namespace) -> "list[Row]":
    from router.collection.collect import read_queries
    from router.priors.probing import check_of

    queries = read_queries(options.queries)[: options.count]
    without = sum(not isinstance(query.get("reference"), str) for query in queries)
    if without and options.judge is None:
        raise InputError(f"{options.queries}: {without} queries have no reference: name a judge with --judge")
    for query in queries:
        if isinstance(query.get("reference"), str):
            query["check"] = query.get("check") or check_of(query["reference"])
    return queries


def _within_budget(
    options: argparse.Namespace, policy: Policy, encoder: Any, queries: "list[Row]"
) -> "list[Row]":
    """As many of the queries as the budget allows for at the most; prints the estimate."""
    from router.priors.probing import estimate

    embeddings = embed(encoder, [query["query"] for query in queries])
    kept = len(queries)
    found = estimate(policy, embeddings, queries, max_tokens=options.max_tokens)
    while options.budget_usd is not None and found.at_most_usd > options.budget_usd and kept:
        kept = min(kept - 1, int(kept * options.budget_usd / found.at_most_usd))
        # Every nth: the kinds of the probes follow one another.
        rows = [int(at) for at in range(len(queries)) if kept and (at * kept) % len(queries) < kept][:kept]
        some = [queries[row] for row in rows]
        found = estimate(policy, embeddings[rows], some, max_tokens=options.max_tokens)
    if not kept:
        raise InputError(
            f"no probe fits into {options.budget_usd} US$: raise --budget-usd or lower --max-tokens"
        )
    if kept < len(queries):
        queries = some
    unpriced = f", without {', '.join(found.unpriced)}, which have no price" if found.unpriced else ""
    print(
        f"{len(queries)} probes, {len(queries) * len(policy.pool)} requests: "
        f"about {found.expected_usd:.4f} US$, at most {found.at_most_usd:.4f} US${unpriced}",
        file=sys.stderr,
    )
    return queries


def _graded(options: argparse.Namespace, rows: "list[Row]", queries: "Mapping[str, Row]") -> "list[Row]":
    """The rows with their quality, by each query's check or by the judge."""
    from router import labels
    from router.priors.probing import grade

    graded, judged = [], []
    for row in rows:
        check = queries[row["query_id"]].get("check")
        if check is None:
            judged.append(row)
        else:
            graded.append({**row, "quality": grade({**row, "check": check})})
    if judged:
        judge = labels.get(
            "judge",
            endpoint=options.endpoint,
            model=options.judge,
            key_env=options.key_env,
            cache=f"{options.out}-judge.jsonl",
        )
        graded += labels.label_rows("judge", judge, judged, where="responses")
    return graded


def experts_of_file(options: argparse.Namespace) -> "list[StartExpert]":
    """The experts that `--experts` names.

    Raises:
        InputError: no file is named, or it cannot be read.
        PoolError: an expert is invalid.
    """
    if options.experts is None:
        raise InputError("name the experts: --experts FILE, or where serving is installed --config FILE")
    entries = mapping_of(options.experts).get("experts")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise PoolError(f"{options.experts} must hold a list `experts` of objects with `name`")
    return [_expert(entry, options.gpu_usd_per_hour) for entry in entries]


def _expert(entry: Mapping[str, Any], gpu_usd_per_hour: float | None) -> "StartExpert":
    from router.priors.facts import config_of
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
