"""What more experts cost the control plane: deploy and update times, and a request's way, by their number.

    python -m cluster.local.control_plane --experts 2,8,32,64 --out var/control-plane

Each size is a fresh local cluster (cluster/local/nodes.py) with simulated experts that answer at once.
Writes figures.json and figures.md, and prints the table; compares nothing with real engines.
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
import yaml

from cluster.local.nodes import CONFIG, HEAD_IP, HTTP_PORT, Machine, deploy
from router.errors import RouterError

URL = f"http://{HEAD_IP}:{HTTP_PORT}"
REQUESTS = 100
READY_WITHIN_S = 120.0


def config(count: int) -> dict[str, Any]:
    """A graph of so many simulated experts without pools; those of the policy come first."""
    base: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    door, template = base["applications"][0], base["applications"][1]
    covered = [app["args"]["name"] for app in base["applications"][1:]]
    names = [*covered, *(f"extra-{number}" for number in range(count))][:count]
    door["args"] = {"router": {"device": "cpu"}, "ingress": {"router_deadline_ms": 5000}}
    door["deployments"][0]["user_config"]["experts"] = {n: {"app": f"expert-{n}"} for n in names}
    applications = []
    for name in names:
        app = copy.deepcopy(template)
        app["name"] = f"expert-{name}"
        app["args"] = {"name": name, "behaviour": {"ttft_ms": 0, "tokens_per_s": None}}
        fixed = {"min_replicas": 1, "max_replicas": 1, "target_ongoing_requests": 32}
        app["deployments"] = [{"name": "Expert", "max_ongoing_requests": 64, "autoscaling_config": fixed}]
        applications.append(app)
    return {**base, "applications": [door, *applications]}


def measure(count: int) -> dict[str, float]:
    """Seconds to deploy, to change one `user_config`, to add an expert; milliseconds of a request."""
    machine = Machine()
    graph = config(count)
    try:
        machine.up(graph)
        deployed = deploy(graph)
        _await_ready()
        changed = copy.deepcopy(graph)
        changed["applications"][0]["deployments"][0]["user_config"]["presets"] = {"cheap": {"cost_weight": 1}}
        updated = deploy(changed)
        named, routed = _latencies("arithmetic"), _latencies("auto")
        grown = deploy(config(count + 1))
    finally:
        machine.down()
    return {
        "experts": count,
        "deploy_s": deployed,
        "update_s": updated,
        "add_s": grown,
        "named_ms_p50": named,
        "auto_ms_p50": routed,
    }


def _await_ready() -> None:
    ends = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < ends:
        try:
            if httpx.get(f"{URL}/ready", timeout=10).status_code == 200:
                return
        except httpx.HTTPError:
            pass  # the door is still opening
        time.sleep(0.5)
    raise RouterError(f"{URL}/ready did not answer 200 within {READY_WITHIN_S:g} s")


def _latencies(model: str) -> float:
    """Median milliseconds of a whole answer, one request at a time; the first ten warm up."""
    body = {"model": model, "messages": [{"role": "user", "content": "what is 2 + 2?"}], "max_tokens": 1}
    taken = []
    with httpx.Client(timeout=30) as client:
        for number in range(REQUESTS + 10):
            began = time.perf_counter()
            client.post(f"{URL}/v1/chat/completions", json=body).raise_for_status()
            if number >= 10:
                taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def table(rows: Sequence[dict[str, float]]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| experts | deploy all | change a `user_config` | add one expert | named request | routed request |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['experts']:.0f} | {row['deploy_s']:.1f} s | {row['update_s']:.1f} s | {row['add_s']:.1f} s "
        f"| {row['named_ms_p50']:.1f} ms | {row['auto_ms_p50']:.1f} ms |"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each size; 2 with one clear line when a cluster does not come up."""
    parser = argparse.ArgumentParser(prog="python -m cluster.local.control_plane", description=__doc__)
    parser.add_argument("--experts", default="2,8,32,64")
    parser.add_argument("--out", type=Path, default=Path("var/control-plane"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, float]] = []
    try:
        for size in options.experts.split(","):
            rows.append(measure(int(size)))
            print(json.dumps(rows[-1]), flush=True)
            (options.out / "figures.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    except (RouterError, httpx.HTTPError, ValueError) as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 2
    (options.out / "figures.md").write_text(table(rows) + "\n", encoding="utf-8")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
