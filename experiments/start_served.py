"""The claims' graph without its policy: `to-router start --probe` against it, and what `auto` is worth then.

    python -m experiments.start_served --out FOLDER [--count 200] [--heldout 150]

Starts the graph (Ray, Serve and the engines), which makes a policy from priors; probes its experts; deploys
the probed policy in place; then sends held-out queries to every expert, and evaluates the prior, the probed
and the shipped policy on them. `--heldout 0` leaves that out.
"""

import argparse
import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import yaml

from cluster.local.readiness import wait_until_ready
from cluster.local.run import ROOT, serving
from cluster.pocket.questions import main as questions
from cluster.pocket.train_policy import CLAIMS
from experiments.deploys import deploy
from router.cli import main as to_router

PORT = 8230
QUERIES = ("What is 12 plus 30?", "Reverse the word 'lantern'.", "What is the capital of Peru?")
"""One for each specialist."""
WEIGHTS = (0.0, 0.3)
"""Cost weights at which policies are compared: quality alone, and the preference of the configuration."""


def main() -> None:
    """Print times, calls, a few responses and the table of policies; files are left in the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder for configuration, policies, reports")
    parser.add_argument("--count", type=int, default=200, help="number of probes")
    parser.add_argument("--heldout", type=int, default=150, help="number of held-out queries")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True)
    config = out / "serve_config.yaml"
    shipped = ROOT / without_policy(config)
    started = time.monotonic()
    with serving(config, log=out / "serve.log") as (url, process):
        if not wait_until_ready(url, lambda: process.poll() is None, print):
            sys.exit("the graph did not start")
        print(f"ready after {time.monotonic() - started:.0f} s; /ready: {router_part(url)}", flush=True)
        run("start", "--config", config, "--out", out / "prior")
        began = time.monotonic()
        endpoint = f"{url}/v1"
        probing = ("--probe", "--endpoint", endpoint, "--count", options.count)
        run("start", "--config", config, *probing, "--max-tokens", 64, "--out", out / "probed")
        print(f"probing took {time.monotonic() - began:.0f} s", flush=True)
        send(url)
        began = time.monotonic()
        deploy(with_policy(config, out / "probed"), url)
        print(f"serve deploy: in effect after {time.monotonic() - began:.1f} s", flush=True)
        send(url)
        if not options.heldout:
            return
        queries = out / "heldout.jsonl"
        questions(["--split", "heldout", "--n", str(options.heldout), "--seed", "3", "--out", str(queries)])
        answers, outcomes = out / "answers.jsonl", out / "heldout.parquet"
        names = ",".join(experts(config))
        asked = ("--endpoint", endpoint, "--queries", queries, "--experts", names, "--max-tokens", 64)
        run("collect", *asked, "--out", answers)
    run("label", "--outcomes", answers, "--quality", "exact", "--out", outcomes)
    print(
        "| policy | quality, default | "
        + " | ".join(f"cost weight {w:g}" for w in WEIGHTS)
        + " | best single |"
    )
    print("|---|---|" + "---|" * (len(WEIGHTS) + 1))
    for name, folder in (("prior", out / "prior"), ("probed", out / "probed"), ("shipped", shipped)):
        print(row(name, report(folder, outcomes, config, out / f"report-{name}")))


def without_policy(target: Path) -> str:
    """Write the configuration of the claims without its policy; returns that policy's folder."""
    data = yaml.safe_load(CLAIMS.config.read_text(encoding="utf-8"))
    data["http_options"]["port"] = PORT
    folder: str = _user_config(data, "Router").pop("policy")
    target.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return folder


def with_policy(config: Path, policy: Path) -> Path:
    """Write the configuration with a policy, beside it."""
    data = yaml.safe_load(config.read_text(encoding="utf-8"))
    _user_config(data, "Router")["policy"] = str(policy.resolve())
    file = config.with_stem(f"{config.stem}_{policy.name}")
    file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return file


def send(url: str) -> None:
    """Print how a query of each kind is answered."""
    for query in QUERIES:
        began = time.monotonic()
        messages = [{"role": "user", "content": query}]
        response = httpx.post(
            f"{url}/v1/chat/completions", json={"model": "auto", "messages": messages}, timeout=60
        )
        response.raise_for_status()
        text = response.json()["choices"][0]["message"]["content"].strip()
        headers = [response.headers.get(f"x-router-{name}", "–") for name in ("expert", "policy", "cost-usd")]
        print(f"{query} → {text}; {', '.join(headers)} US$, {time.monotonic() - began:.2f} s", flush=True)


def experts(config: Path) -> list[str]:
    """The names of a configuration's experts."""
    return list(_user_config(yaml.safe_load(config.read_text(encoding="utf-8")), "Ingress")["experts"])


def router_part(url: str) -> str:
    """What `/ready` reports of the router."""
    with urllib.request.urlopen(f"{url}/ready", timeout=10) as response:  # noqa: S310 - our own address
        return str(json.load(response)["parts"]["router"]["why"])


def run(*arguments: object) -> None:
    """Run a command of `to-router`; ends the program where it fails."""
    words = [str(word) for word in arguments]
    print(f"$ to-router {' '.join(words)}", flush=True)
    if code := to_router(words):
        sys.exit(code)


def report(policy: Path, outcomes: Path, config: Path, out: Path) -> dict[str, Any]:
    """The figures of a policy on outcomes, at the configuration's prices."""
    prices = _user_config(yaml.safe_load(config.read_text(encoding="utf-8")), "Router")["prices"]
    pool = out.with_suffix(".yaml")
    entries = [{"name": name, "price_per_mtok": price} for name, price in prices.items()]
    pool.write_text(yaml.safe_dump({"experts": entries}), encoding="utf-8")
    run("evaluate", "--policy", policy, "--outcomes", outcomes, "--pool", pool, "--out", out)
    figures: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return figures


def row(name: str, figures: dict[str, Any]) -> str:
    """A line of the table."""
    at = [min(figures["curve"], key=lambda point: abs(point["cost_weight"] - weight)) for weight in WEIGHTS]
    cells = [f"{figures['policy']['quality']:.3f}", *(f"{point['quality']:.3f}" for point in at)]
    return f"| {name} | {' | '.join(cells)} | {figures['best_single']['quality']:.3f} |"


def _user_config(data: dict[str, Any], deployment: str) -> dict[str, Any]:
    for application in data["applications"]:
        for one in application.get("deployments", ()):
            if one["name"] == deployment:
                found: dict[str, Any] = one["user_config"]
                return found
    raise KeyError(deployment)


if __name__ == "__main__":
    main()
