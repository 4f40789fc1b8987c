"""The probing of `to-router start --probe`: choose, estimate, send, grade, join."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from router.cli.inputs import embed, progress
from router.errors import InputError
from router.policy import Policy

if TYPE_CHECKING:
    from router.data.outcomes import Row
    from router.priors.abilities import AbilityPrior
    from router.priors.probes import Probe
    from router.priors.start import StartExpert

SHIPPED = "shipped"
"""The name of the probes that come with the package."""


class Generator(NamedTuple):
    """Makes fresh probes; other packages register theirs in the default `generators` of `start`."""

    make: "Callable[[int, int], Sequence[Probe]]"
    """(how many of a kind at most, seed) → probes to choose from."""
    fits: "Callable[[Sequence[StartExpert]], bool]"
    """Whether it is the one for these experts where none is named."""


def fresh(count: int, seed: int) -> "Sequence[Probe]":
    """Those of reasoning-gym."""
    from router.priors.fresh import fresh

    return fresh(count, seed)


def reported(options: argparse.Namespace, experts: "list[StartExpert]") -> "list[StartExpert]":
    """The experts with what the endpoint reports of their models; without any, all that it lists.

    Raises:
        InputError: the probes' own options are invalid; or the endpoint does not respond, or lists no expert.
        PoolError: a listed name is invalid.
    """
    from router.experts import ExpertProfile
    from router.priors.start import started, with_reported

    _check_options(options)
    cards = asyncio.run(_listed(options))
    if not experts:
        names = [name for name, card in cards.items() if card.get("owned_by") != "to-router"]
        experts = [started(ExpertProfile.from_json({"name": name}), None) for name in names]
    if not experts:
        raise InputError(f"{options.endpoint} lists no expert")
    return [with_reported(expert, cards.get(expert.profile.name, {})) for expert in experts]


def _check_options(options: argparse.Namespace) -> None:
    """Check what can be checked before the endpoint is called."""
    if options.queries is not None:
        _own_queries(options)
        return
    known = (SHIPPED, *options.generators)
    if options.generator is not None and options.generator not in known:
        raise InputError(f"--generator must be one of {', '.join(known)}, found {options.generator!r}")


async def _listed(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    from router.collection.endpoint import listed_models, open_client

    key = os.environ.get(options.key_env)
    async with open_client(
        options.endpoint, api_key=key, timeout_s=options.timeout_s, transport=None
    ) as client:
        return await listed_models(client)


def probed(
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
    from router.priors.update import Belief

    belief = Belief.of(prior.of([expert.facts for expert in experts]))
    if options.queries is not None:
        queries = _own_queries(options)
    else:
        probes = _probes_of(options, experts)
        queries = probing.as_queries(probing.choose(policy, belief, probes, count=options.count))
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


def _probes_of(options: argparse.Namespace, experts: "Sequence[StartExpert]") -> "Sequence[Probe]":
    """The probes to choose from: shipped ones, or those of a generator."""
    from router.priors.probes import load_probes

    generators: Mapping[str, Generator] = options.generators
    named = options.generator
    if named is None:
        fitting = (name for name, generator in generators.items() if generator.fits(experts))
        named = next(fitting, SHIPPED)
    if named == SHIPPED:
        return load_probes()
    print(f"probes are generated by {named}, seed {options.seed}", file=sys.stderr)
    return generators[named].make(options.count, options.seed)


def _own_queries(options: argparse.Namespace) -> "list[Row]":
    from router.collection.collect import read_queries
    from router.priors.probing import check_for

    queries = read_queries(options.queries)[: options.count]
    without = sum(not isinstance(query.get("reference"), str) for query in queries)
    if without and options.judge is None:
        raise InputError(f"{options.queries}: {without} queries have no reference: name a judge with --judge")
    for query in queries:
        if isinstance(query.get("reference"), str):
            query["check"] = check_for(query, str(options.queries))
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
