"""Load on one expert of a running local cluster, and the replicas of all experts over time, as a plot.

    python -m cluster.local.nodes up
    python -m cluster.local.elasticity --expert arithmetic --out var/elasticity

Writes samples.json and replicas.png. The load is bounded and stays on this machine.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from cluster.local.nodes import DASHBOARD, HEAD_IP, HTTP_PORT

URL = f"http://{HEAD_IP}:{HTTP_PORT}"
EVERY_S = 1.0


def running_replicas() -> dict[str, int]:
    """Application → replicas that run, of the experts."""
    answer = httpx.get(f"{DASHBOARD}/api/serve/applications/", timeout=30).json()
    return {
        name: sum(r["state"] == "RUNNING" for r in app["deployments"]["Expert"]["replicas"])
        for name, app in answer["applications"].items()
        if "Expert" in app["deployments"]
    }


def record(expert: str, clients: int, load_s: float, rest_s: float) -> list[dict[str, Any]]:
    """Samples of replicas: a tenth of the load's time before it, then the load, then the rest."""
    ended = threading.Event()
    body = {"model": expert, "messages": [{"role": "user", "content": "tell me"}], "max_tokens": 400}
    statuses: list[int] = []

    def client() -> None:
        with httpx.Client(timeout=120) as http:
            while not ended.is_set():
                statuses.append(http.post(f"{URL}/v1/chat/completions", json=body).status_code)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.monotonic()
    samples: list[dict[str, Any]] = []

    def sample(until: float, load: int) -> None:
        while time.monotonic() - began < until:
            failed = sum(status != 200 for status in statuses)
            samples.append(
                {
                    "t_s": time.monotonic() - began,
                    "clients": load,
                    "answered": len(statuses),
                    "failed": failed,
                    "replicas": running_replicas(),
                }
            )
            time.sleep(EVERY_S)

    quiet = load_s / 10
    sample(quiet, 0)
    for thread in threads:
        thread.start()
    try:
        sample(quiet + load_s, clients)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    sample(quiet + load_s + rest_s, 0)
    return samples


def plot(samples: Sequence[dict[str, Any]], file: Path) -> None:
    """Replicas of each expert as steps, the clients behind them."""
    from matplotlib.figure import Figure

    times = [sample["t_s"] for sample in samples]
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for name in sorted({name for sample in samples for name in sample["replicas"]}):
        axes.step(times, [sample["replicas"].get(name, 0) for sample in samples], where="post", label=name)
    axes.set(xlabel="seconds", ylabel="running replicas", ylim=(0, None))
    behind = axes.twinx()
    behind.fill_between(times, [sample["clients"] for sample in samples], step="post", alpha=0.12)
    behind.set(ylabel="clients at once", ylim=(0, None))
    axes.legend(loc="upper right")
    figure.savefig(file, dpi=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Record and draw."""
    parser = argparse.ArgumentParser(prog="python -m cluster.local.elasticity", description=__doc__)
    parser.add_argument("--expert", default="arithmetic")
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--load-s", type=float, default=40)
    parser.add_argument("--rest-s", type=float, default=60)
    parser.add_argument("--out", type=Path, default=Path("var/elasticity"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        samples = record(options.expert, options.clients, options.load_s, options.rest_s)
    except httpx.HTTPError as error:
        print(f"no local cluster answers: {error}; run `python -m cluster.local.nodes up`", file=sys.stderr)
        return 2
    (options.out / "samples.json").write_text(json.dumps(samples) + "\n", encoding="utf-8")
    plot(samples, options.out / "replicas.png")
    last = samples[-1]
    print(f"{last['answered']} answered, {last['failed']} failed; replicas at the end {last['replicas']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
