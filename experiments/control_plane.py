"""Cost of more experts for the control plane: times of deploys, updates and requests by their number.

    python -m experiments.control_plane --experts 2,8,32,64 --out var/control-plane

Each size is a fresh local cluster (cluster/local/nodes.py) with simulated experts that respond at once and
a real policy that scores them all, trained on made-up outcomes and kept in `--out` for the next run.
Writes figures.json, figures.md and figures.png, and prints the table; other sizes in figures.json stay.
Makes no statement on real engines.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml

from cluster.local.dashboard_api import HTTP_PORT, await_ready, deploy
from cluster.local.network import ClusterNotStarted
from cluster.local.nodes import CONFIG, Machine, addresses
from experiments.costs import costs
from router.data.dataset import Dataset
from router.encoders import DEFAULT, load_encoder
from router.errors import RouterError
from router.experts import CandidatePool, ExpertProfile, Price
from router.training.card import card
from router.training.train import train

REQUESTS = 100
TRAINED_ON = 300
TABLE = {
    "deploy all, s": "deploy_s",
    "change a `user_config`, s": "update_s",
    "add one expert, s": "add_s",
    "controller, idle, % of a core": "idle_controller_share",
    "named request, ms": "named_ms_p50",
    "routed request, ms": "auto_ms_p50",
    "ingress per named request, CPU ms": "ingress_named_ms",
    "ingress per routed request, CPU ms": "ingress_routed_ms",
    "router per new query, CPU ms": "router_new_query_ms",
}
"""Column → figure."""


def names(count: int) -> list[str]:
    """Return the names of `count` experts."""
    return [f"e{number}" for number in range(count)]


def config(count: int, policy: Path) -> dict[str, Any]:
    """Return a graph of `count` simulated experts on one pool, ingress and router on another."""
    base: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    main_app, template = base["applications"][0], base["applications"][1]
    main_app["args"]["ingress"]["router_deadline_ms"] = 10_000  # the router is measured, not its absence
    main_app["deployments"][0]["user_config"]["experts"] = {n: {"app": f"expert-{n}"} for n in names(count)}
    main_app["deployments"][1]["user_config"]["policy"] = str(policy.resolve())
    fixed = {"min_replicas": 1, "max_replicas": 1, "target_ongoing_requests": 32}
    applications = [
        {
            **template,
            "name": f"expert-{name}",
            "args": {
                "name": name,
                "pool": {"labels": {"pool": "experts"}},
                "behaviour": {"ttft_ms": 0, "tokens_per_s": None},
            },
            "deployments": [{**template["deployments"][0], "autoscaling_config": fixed}],
        }
        for name in names(count)
    ]
    return {**base, "applications": [main_app, *applications]}


def policy(count: int, folder: Path) -> Path:
    """Return a policy over `count` experts, trained on made-up outcomes if the folder does not exist."""
    if (folder / "manifest.json").is_file():
        return folder
    rng = np.random.default_rng(count)
    numbers = rng.integers(0, 1000, (TRAINED_ON, 2))
    queries = tuple(f"what is {a} + {b}, and why is that so? ({row})" for row, (a, b) in enumerate(numbers))
    pool = CandidatePool(
        [ExpertProfile(n, Price(0.1 * (1 + i), 0.2 * (1 + i))) for i, n in enumerate(names(count))]
    )
    shape = (TRAINED_ON, count)
    measured = {
        "quality": (rng.random(shape) < rng.uniform(0.2, 0.9, count)).astype(float),
        "prompt_tokens": np.full(shape, 20.0),
        "completion_tokens": rng.integers(20, 400, shape).astype(float),
    }
    ids = tuple(f"q{row}" for row in range(TRAINED_ON))
    encoder = load_encoder("default", device="cpu", threads=1)
    dataset = Dataset(pool, ids, queries, measured, ("sums",) * TRAINED_ON, None)
    policy = train(dataset, encoder.encode(queries), DEFAULT, method="auto")
    policy.save(folder, card(policy))
    return folder


def measure(count: int, out: Path) -> dict[str, float]:
    """Measure deploys, requests and the costs of each part with `count` experts."""
    machine = Machine()
    # The policy has one more expert, which is added at the end.
    served = policy(count + 1, out / f"policy-{count}")
    graph = config(count, served)
    try:
        machine.up(graph)
        deployed = deploy(graph)
        url = f"http://{addresses(graph)['ingress']}:{HTTP_PORT}"
        await_ready(url)
        changed = copy.deepcopy(graph)
        changed["applications"][0]["deployments"][0]["user_config"]["presets"] = {"cheap": {"cost_weight": 1}}
        updated = _update(changed, url)
        named, routed = _latencies(url, "e0"), _latencies(url, "auto")
        spent = costs(url, "e0")
        grown = deploy(config(count + 1, served))
    finally:
        machine.down()
    return {
        "experts": count,
        "deploy_s": deployed,
        "update_s": updated,
        "add_s": grown,
        "named_ms_p50": named,
        "auto_ms_p50": routed,
        **spent,
    }


def _update(changed: dict[str, Any], url: str) -> float:
    """Return the seconds until a preset of a changed `user_config` is listed."""
    began = time.monotonic()
    deploy(changed)
    while "cheap" not in httpx.get(f"{url}/v1/models", timeout=30).text:
        if time.monotonic() - began > 120:
            raise ClusterNotStarted("the changed user_config is not in effect after 120 s")
        time.sleep(0.05)
    return time.monotonic() - began


def _latencies(url: str, model: str) -> float:
    """Return the median milliseconds of a response, one request at a time; the first ten warm up."""
    taken = []
    with httpx.Client(timeout=30) as client:
        for number in range(REQUESTS + 10):
            text = f"what is {number} + 2?"
            body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 1}
            began = time.perf_counter()
            client.post(f"{url}/v1/chat/completions", json=body).raise_for_status()
            if number >= 10:
                taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def table(rows: Sequence[dict[str, float]]) -> str:
    """Return the figures as a Markdown table, a column for each size."""
    lines = [
        "| experts | " + " | ".join(f"{row['experts']:.0f}" for row in rows) + " |",
        "|---" * (len(rows) + 1) + "|",
    ]
    for title, name in TABLE.items():
        factor = 100 if "%" in title else 1
        lines.append(f"| {title} | " + " | ".join(f"{factor * row[name]:.2f}" for row in rows) + " |")
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, float]], file: Path) -> None:
    """Plot times and costs by the number of experts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    deploys, requests = figure.subplots(1, 2)
    counts = [row["experts"] for row in rows]
    for title, name in TABLE.items():
        axes = deploys if title.endswith(", s") else requests
        if "%" not in title:
            axes.plot(counts, [row[name] for row in rows], marker="o", label=title.replace("`", ""))
    for axes, label in ((deploys, "seconds"), (requests, "milliseconds")):
        axes.set(xlabel="experts", ylabel=label, ylim=(0, None), xticks=counts)
        axes.legend(fontsize=8)
    figure.savefig(file, dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each size; 2 with one clear line if a cluster does not start."""
    parser = argparse.ArgumentParser(prog="python -m experiments.control_plane", description=__doc__)
    parser.add_argument("--experts", default="2,8,32,64")
    parser.add_argument("--out", type=Path, default=Path("var/control-plane"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "figures.json"
    rows: list[dict[str, float]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    try:
        for size in options.experts.split(","):
            row = measure(int(size), options.out)
            print(json.dumps(row), flush=True)
            others = [one for one in rows if one["experts"] != row["experts"]]
            rows = sorted([*others, row], key=lambda one: one["experts"])
            file.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    except (RouterError, httpx.HTTPError, ValueError) as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 2
    (options.out / "figures.md").write_text(table(rows) + "\n", encoding="utf-8")
    plot(rows, options.out / "figures.png")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
