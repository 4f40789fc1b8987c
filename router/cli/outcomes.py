"""The commands that make outcomes: probes, collect, label."""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from router.cli.inputs import count, embed, encoder_of, names, not_negative, progress, seconds, seed
from router.errors import InputError


def add_commands(commands: Any) -> None:
    """Register the commands with argparse's subparsers."""
    collect = commands.add_parser("collect", help="send each query to each expert; resumes where it stopped")
    collect.add_argument("--endpoint", required=True, help="such as http://127.0.0.1:8000/v1")
    collect.add_argument("--queries", required=True, type=Path, help="JSONL or Parquet with a column `query`")
    collect.add_argument("--experts", required=True, help="names, separated by commas")
    collect.add_argument("--out", required=True, type=Path, help="JSONL to append to")
    collect.add_argument("--max-tokens", type=count, default=512, help="completion tokens at most")
    collect.add_argument(
        "--temperature", type=not_negative, default=0.0, help="sampling temperature; default: 0"
    )
    collect.add_argument(
        "--samples", type=count, default=1, help="answers of each expert to each query, for vote plans"
    )
    collect.add_argument(
        "--logprobs",
        action="store_true",
        help="record each token's log-probability, for plans that read them",
    )
    collect.add_argument("--concurrency", type=count, default=8, help="requests in flight")
    collect.add_argument("--timeout-s", type=seconds, default=120.0, help="deadline of one request")
    collect.add_argument("--key-env", default="TO_ROUTER_API_KEY", help="environment variable with the key")
    collect.set_defaults(run=_collect)

    label = commands.add_parser("label", help="label responses and write outcomes with `quality`")
    label.add_argument("--outcomes", required=True, type=Path, help="rows with `response` and `reference`")
    label.add_argument(
        "--quality", required=True, help="exact, numeric, contains, choice, bertsim, code, judge or nll"
    )
    label.add_argument("--options", type=Path, help="YAML or JSON with the labeler's parameters")
    label.add_argument("--out", required=True, type=Path, help="Parquet or JSONL, by its ending")
    label.set_defaults(run=_label)

    probes = commands.add_parser("probes", help="choose informative queries to measure a new expert on")
    probes.add_argument("--queries", required=True, type=Path, help="queries or outcomes to choose from")
    probes.add_argument("--count", type=count, default=100, help="number of probes")
    probes.add_argument("--encoder", default="default", help="`default`, `static`, a folder, or a hub id")
    probes.add_argument("--seed", type=seed, default=0, help="a whole number from 0")
    probes.add_argument("--out", required=True, type=Path, help="JSONL for `collect --queries`")
    probes.set_defaults(run=_probes)


def _collect(options: argparse.Namespace) -> int:
    from router.collection.collect import collect, read_queries

    experts = names(options.experts, "--experts")
    queries = read_queries(options.queries)
    with progress(len(queries) * len(experts) * options.samples, "collect") as advance:
        done = asyncio.run(
            collect(
                options.endpoint,
                queries,
                experts,
                options.out,
                api_key=os.environ.get(options.key_env),
                max_tokens=options.max_tokens,
                temperature=options.temperature,
                samples=options.samples,
                logprobs=options.logprobs,
                concurrency=options.concurrency,
                timeout_s=options.timeout_s,
                progress=advance,
            )
        )
    print(f"{options.out}: {done.collected} answers collected, {done.kept_from_before} kept from before")
    if done.failed:
        failures = f"{len(done.failed)} pairs got no answer; run again to retry them. First: {done.failed[0]}"
        print(failures, file=sys.stderr)
        return 1
    return 0


def _label(options: argparse.Namespace) -> int:
    from router import labels
    from router.cli.inputs import mapping_of
    from router.data.outcomes import checked, read_rows, write_rows

    parameters = mapping_of(options.options)
    if options.quality in labels.CACHED:
        parameters.setdefault("cache", f"{options.out}.{options.quality}.jsonl")
    try:
        labeler = labels.get(options.quality, **parameters)
    except TypeError as error:
        raise InputError(f"{options.options}: {options.quality} does not take these: {error}") from error
    rows = read_rows(options.outcomes)
    left_out: list[str] = []
    labelled = labels.label_rows(
        options.quality, labeler, rows, where=str(options.outcomes), left_out=left_out.append
    )
    write_rows(options.out, checked(labelled, str(options.outcomes)))
    mean = sum(row["quality"] for row in labelled) / len(labelled)
    print(f"{options.out}: {len(labelled)} outcomes, mean quality {mean:.4f} ({options.quality})")
    if left_out:
        failures = f"{len(left_out)} rows got no label; run again to retry them. First: {left_out[0]}"
        print(failures, file=sys.stderr)
        return 1
    return 0


def _probes(options: argparse.Namespace) -> int:
    from router.collection.collect import read_queries
    from router.data.outcomes import write_rows
    from router.training.probes import choose_probes

    rows = read_queries(options.queries, repeated=True)
    texts = [row["query"] for row in rows]
    chosen = choose_probes(embed(encoder_of(options.encoder), texts), count=options.count, seed=options.seed)
    kept = ("query_id", "query", "reference", "task")
    write_rows(options.out, [{k: rows[i][k] for k in kept if rows[i].get(k) is not None} for i in chosen])
    print(f"{options.out}: {len(chosen)} probes of {len(rows)} queries")
    return 0
