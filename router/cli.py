"""The command line `to-router`: collect, label, train, evaluate, compare, inspect, route, verify, …

Serving and cluster commands register themselves through the entry-point group `to_router.commands`:
each entry is a function that takes argparse's subparsers, so the library imports neither.
Exit codes: 0 done, 1 a check said no, 2 bad input, 130 interrupted.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from router.errors import InputError, NoEligibleExpertError, RouterError

COMMANDS = "to_router.commands"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; one clear line on standard error when the input is bad."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except (RouterError, FileExistsError, FileNotFoundError, PermissionError) as error:
        print(f"to-router {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="to-router", description="Train, judge and serve LLM routing policies."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_collect,
        _add_label,
        _add_train,
        _add_evaluate,
        _add_compare,
        _add_inspect,
        _add_route,
        _add_verify,
    ):
        add(commands)
    for point in entry_points(group=COMMANDS):
        try:
            point.load()(commands)
        except ImportError as error:
            # A command of an extra that is not installed: the others work without it.
            if os.environ.get("TO_ROUTER_DEBUG"):
                print(f"command {point.name!r} is not available: {error}", file=sys.stderr)
    return parser


def _add_collect(commands: Any) -> None:
    command = commands.add_parser("collect", help="ask every expert every query; resumes where it stopped")
    command.add_argument("--endpoint", required=True, help="such as http://127.0.0.1:8000/v1")
    command.add_argument("--queries", required=True, type=Path, help="JSONL or Parquet with a column `query`")
    command.add_argument("--experts", required=True, help="names, separated by commas")
    command.add_argument("--out", required=True, type=Path, help="JSONL to append to")
    command.add_argument("--max-tokens", type=int, default=512)
    command.add_argument("--concurrency", type=int, default=8)
    command.add_argument("--timeout-s", type=float, default=120.0)
    command.add_argument(
        "--key-env", default="TO_ROUTER_API_KEY", help="environment variable that holds the key"
    )
    command.set_defaults(run=_collect)


def _collect(options: argparse.Namespace) -> int:
    from router.collect import collect, read_queries

    queries = read_queries(options.queries)
    experts = [name for name in options.experts.split(",") if name]
    if not experts:
        raise InputError("--experts names no expert")
    with _progress(len(queries) * len(experts), "collect") as progress:
        done = asyncio.run(
            collect(
                options.endpoint,
                queries,
                experts,
                options.out,
                api_key=os.environ.get(options.key_env),
                max_tokens=options.max_tokens,
                concurrency=options.concurrency,
                timeout_s=options.timeout_s,
                progress=progress,
            )
        )
    print(f"{options.out}: {done.asked} answers collected, {done.kept_from_before} kept from before")
    if done.failed:
        print(
            f"{len(done.failed)} pairs got no answer; run again to ask them. First: {done.failed[0]}",
            file=sys.stderr,
        )
        return 1
    return 0


def _add_label(commands: Any) -> None:
    command = commands.add_parser("label", help="judge responses and write outcomes with `quality`")
    command.add_argument(
        "--outcomes", required=True, type=Path, help="JSONL or Parquet with `response` and `reference`"
    )
    command.add_argument("--quality", required=True, help="exact, numeric, contains, choice, bertsim, …")
    command.add_argument("--out", required=True, type=Path)
    command.set_defaults(run=_label)


def _label(options: argparse.Namespace) -> int:
    from router import labels
    from router.data.outcomes import checked, read_rows, write_rows
    from router.errors import OutcomesError

    labeler = labels.get(options.quality)
    rows = read_rows(options.outcomes)
    for number, row in enumerate(rows, start=1):
        for name in ("response", "reference"):
            if not isinstance(row.get(name), str):
                raise OutcomesError(f"{options.outcomes}, row {number}: {name} must be a text to be judged")
    quality = labeler.label(
        [row["response"] for row in rows],
        [row["reference"] for row in rows],
        [row.get("query", "") for row in rows],
    )
    labelled = [{**row, "quality": float(value)} for row, value in zip(rows, quality, strict=True)]
    write_rows(options.out, checked(labelled, str(options.outcomes)))
    print(f"{options.out}: {len(rows)} outcomes, mean quality {quality.mean():.4f} ({options.quality})")
    return 0


def _add_train(commands: Any) -> None:
    command = commands.add_parser("train", help="make a policy from outcomes")
    _add_data(command)
    command.add_argument(
        "--method", default="auto", help="knn, fixed, random, …; the default picks and blends"
    )
    command.add_argument("--recipe", type=Path, help="YAML or JSON with the method's parameters")
    command.add_argument("--out", required=True, type=Path, help="the policy folder to make")
    command.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from router.card import card
    from router.training import train

    if options.out.exists():
        raise FileExistsError(f"{options.out} exists already: name a new folder, or remove it first")
    dataset, encoder = _load(options)
    embeddings = _embed(encoder, dataset.texts)
    policy = train(
        dataset,
        embeddings,
        encoder.spec,
        method=options.method,
        params=_recipe(options.recipe),
        seed=options.seed,
        tell=lambda line: print(line, file=sys.stderr),
    )
    policy = replace(policy, card=card(policy)).save(options.out)
    print(
        f"{options.out}: policy {policy.policy_id} ({policy.method.name}) over {', '.join(policy.pool.names)}"
    )
    return 0


def _add_evaluate(commands: Any) -> None:
    command = commands.add_parser("evaluate", help="judge a policy on outcomes")
    command.add_argument("--policy", required=True, type=Path)
    _add_data(command)
    command.add_argument("--split", help="only the queries of this split")
    command.add_argument(
        "--out", required=True, type=Path, help="folder for report.json, report.md, curve.png"
    )
    command.add_argument("--json", action="store_true", help="print report.json")
    command.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from router.evaluation import judge, report
    from router.policy import Policy
    from router.report import as_markdown, write_report

    policy = Policy.load(options.policy)
    options.encoder, options.experts = policy.encoder, None
    dataset, encoder = _load(options, prices={expert.name: expert for expert in policy.pool})
    if options.split:
        dataset = dataset.take(dataset.split_rows(options.split))
    judged = judge(policy, dataset, _embed(encoder, dataset.texts))
    figures = report(judged)
    write_report(options.out, judged, figures)
    print(json.dumps(figures, indent=2) if options.json else as_markdown(figures))
    return 0


def _add_compare(commands: Any) -> None:
    command = commands.add_parser("compare", help="several methods on the same splits: one table, one plot")
    _add_data(command)
    command.add_argument("--methods", required=True, help="names, separated by commas")
    command.add_argument(
        "--splits", type=int, default=1, help="how many random splits (seeds seed, seed+1, …)"
    )
    command.add_argument("--test-fraction", type=float, default=0.3)
    command.add_argument("--out", required=True, type=Path)
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    from router.comparison import as_markdown, compare, write_comparison

    methods = [name for name in options.methods.split(",") if name]
    dataset, encoder = _load(options)
    found = compare(
        dataset,
        _embed(encoder, dataset.texts),
        encoder.spec,
        methods=methods,
        seeds=range(options.seed, options.seed + options.splits),
        test_fraction=options.test_fraction,
        tell=lambda line: print(line, file=sys.stderr),
    )
    write_comparison(options.out, found)
    print(json.dumps(found, indent=2) if options.json else as_markdown(found))
    return 0


def _add_inspect(commands: Any) -> None:
    command = commands.add_parser("inspect", help="what a policy folder holds")
    command.add_argument("policy", type=Path)
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from router import artifact

    found, policy_id = artifact.load(options.policy)
    if options.json:
        arrays = {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in found.arrays.items()}
        print(json.dumps({"policy_id": policy_id, **found.facts, "arrays": arrays}, indent=2))
        return 0
    print(f"policy_id: {policy_id}\n\n{found.card}")
    for name, array in found.arrays.items():
        print(f"{name}: {list(array.shape)} {array.dtype}")
    return 0


def _add_route(commands: Any) -> None:
    command = commands.add_parser("route", help="which expert a policy chooses for a text")
    command.add_argument("--policy", required=True, type=Path)
    command.add_argument(
        "--encoder", default=None, help="a folder or hub id, instead of where the policy's is found"
    )
    command.add_argument("--cost-weight", type=float)
    command.add_argument("--min-quality", type=float)
    command.add_argument("--json", action="store_true")
    command.add_argument("text", help="the query; - reads standard input")
    command.set_defaults(run=_route)


def _route(options: argparse.Namespace) -> int:
    from router.core import Preferences, QueryBatch, RouteRequest
    from router.encoders import load_encoder
    from router.policy import Policy

    policy = Policy.load(options.policy)
    text = sys.stdin.read() if options.text == "-" else options.text
    encoder = load_encoder(options.encoder or policy.encoder)
    preferences = Preferences(cost_weight=options.cost_weight, min_quality=options.min_quality)
    batch = QueryBatch((text,), encoder.encode([text]))
    (decision,) = policy.decide(batch, [RouteRequest(text, preferences)])
    if isinstance(decision, NoEligibleExpertError):
        raise decision
    if options.json:
        experts = {
            name: {"score": view.score, "cost_usd": view.cost_usd} for name, view in decision.experts.items()
        }
        told = {"expert": decision.expert, "ranking": list(decision.ranking), "policy": decision.policy_id}
        print(json.dumps({**told, "unfamiliar": decision.unfamiliar, "experts": experts}, indent=2))
        return 0
    print(decision.expert)
    for name in decision.ranking:
        view = decision.experts[name]
        cost = "cost unknown" if view.cost_usd is None else f"{view.cost_usd:.3g} US$"
        print(f"  {name}: score {view.score:.3f}, {cost}")
    if decision.unfamiliar:
        print("  far from all training queries: scores are the pool's means")
    return 0


def _add_verify(commands: Any) -> None:
    command = commands.add_parser("verify", help="check a policy folder: files, hashes, shapes, encoder")
    command.add_argument("policy", type=Path)
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from router.encoders.source import find
    from router.policy import Policy

    policy = Policy.load(options.policy)
    find(policy.encoder)
    told = {"policy_id": policy.policy_id, "experts": list(policy.pool.names), "encoder": policy.encoder.id}
    print(
        json.dumps(told)
        if options.json
        else f"policy {policy.policy_id} is sound: {', '.join(policy.pool.names)}"
    )
    return 0


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--outcomes", required=True, type=Path, help="Parquet or JSONL, a row for each (query, expert)"
    )
    command.add_argument("--pool", type=Path, help="experts.yaml: prices, context windows, order")
    command.add_argument("--experts", help="only these experts, separated by commas")
    command.add_argument("--encoder", default="default", help="`default`, a folder, or a hub id")
    command.add_argument("--seed", type=int, default=0)


def _load(options: argparse.Namespace, *, prices: Any = None) -> Any:
    """(data set, encoder) that a command names."""
    from router.data.dataset import load_dataset, load_pool
    from router.encoders import load_encoder
    from router.experts import CandidatePool

    pool = load_pool(options.pool) if options.pool else None
    if pool is None and prices is not None:
        pool = CandidatePool(list(prices.values()))
    dataset = load_dataset(options.outcomes, pool=pool)
    if options.experts:
        dataset = dataset.only([name for name in options.experts.split(",") if name])
    return dataset, load_encoder(options.encoder, threads=os.cpu_count() or 1)


def _embed(encoder: Any, texts: Sequence[str]) -> Any:
    from router.data.embeddings import encode_cached

    with _progress(len(texts), "encode") as progress:
        return encode_cached(encoder, texts, progress=progress)


def _recipe(file: Path | None) -> dict[str, Any]:
    """A method's parameters from a file; empty without one."""
    import yaml

    if file is None:
        return {}
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{file} cannot be read as YAML or JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{file} must hold an object of parameters, found {type(data).__name__}")
    return data


@contextmanager
def _progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere a plain line every tenth."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit="") as bar:
            yield bar.update
        return
    done, told = 0, 0

    def advance(count: int) -> None:
        nonlocal done, told
        done += count
        if total and done * 10 // total > told:
            told = done * 10 // total
            print(f"{what}: {done}/{total}", file=sys.stderr)

    yield advance


if __name__ == "__main__":
    sys.exit(main())
