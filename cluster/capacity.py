"""Processors, GPUs and connections for a rate of requests, from the measured costs of one request.

    python -m cluster.capacity [--rate 10000] [--tokens 200] [--figures docs/control-plane.json]

Arithmetic only, on figures that `python -m experiments.control_plane` measured; a processor is one of the
machine of that measurement. The speed of a GPU is not measured: give your own.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "control-plane.json"
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Load:
    """The load on a deployment."""

    rate: float = 10_000.0
    """Requests per second."""
    tokens: float = 200.0
    """Tokens of an answer; in the worst case each is streamed as its own chunk."""
    used: float = 0.6
    """Share of a processor that may be in use, so that bursts do not queue."""
    known: float = 0.0
    """Share of the queries whose embedding is in the router's cache."""
    gpu_tokens_per_s: float = 2500.0
    """Tokens per second of one GPU, summed over its requests."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the load needs."""

    front: float
    ingress: float
    router: float
    """Processors."""
    relaying: float
    """Share of the ingress' processors for chunks alone."""
    gpus: float
    connections: float
    """Between ingress and expert replicas of one GPU each, in one cluster."""
    replicas_at_most: float
    """Replicas that one controller can watch with the share of a processor that may be in use."""


def needs(rows: Sequence[Figures], load: Load) -> Needs:
    """Return the needs of a load, by the costs with the most experts."""
    costs = max(rows, key=lambda row: row["experts"])

    def processors(request_ms: float, chunk_ms: float = 0.0) -> float:
        return load.rate * (request_ms + load.tokens * chunk_ms) / 1000 / load.used

    decision_ms = (1 - load.known) * costs["router_new_query_ms"] + load.known * costs[
        "router_known_query_ms"
    ]
    ingress = processors(costs["ingress_routed_ms"], costs["ingress_chunk_ms"])
    gpus = load.rate * load.tokens / load.gpu_tokens_per_s
    base, each = controller(rows)
    return Needs(
        front=processors(costs["front_named_ms"], costs["front_chunk_ms"]),
        ingress=ingress,
        router=processors(decision_ms),
        relaying=processors(0.0, costs["ingress_chunk_ms"]),
        gpus=gpus,
        connections=math.ceil(ingress) * math.ceil(gpus),
        replicas_at_most=max(0.0, (load.used - base) / each) if each > 0 else math.inf,
    )


def controller(rows: Sequence[Figures]) -> tuple[float, float]:
    """Fit a line: the controller's share of a processor without replicas, and for each further one."""
    if len(rows) < 2:
        return rows[0]["idle_controller_share"], 0.0
    count = [row["experts"] for row in rows]
    share = [row["idle_controller_share"] for row in rows]
    middle, height = sum(count) / len(rows), sum(share) / len(rows)
    slope = sum((x - middle) * (y - height) for x, y in zip(count, share, strict=True)) / sum(
        (x - middle) ** 2 for x in count
    )
    return height - slope * middle, slope


def table(need: Needs, load: Load) -> str:
    """Return the needs as a Markdown table."""
    lines = [
        f"| for {load.rate:g} requests/s of {load.tokens:g} tokens, processors {load.used:.0%} in use | |",
        "|---|---|",
        f"| HTTP front (HAProxy), processors | {need.front:.0f} |",
        f"| ingress, processors = replicas | {need.ingress:.0f} |",
        f"| of these for relaying chunks | {need.relaying:.0f} |",
        f"| router, processors, {load.known:.0%} of the embeddings cached | {need.router:.0f} |",
        f"| GPUs at {load.gpu_tokens_per_s:g} tokens/s each (an assumption) | {need.gpus:.0f} |",
        f"| connections between ingress and expert replicas in one cluster | {need.connections:.0f} |",
        f"| replicas that one controller watches | {need.replicas_at_most:.0f} |",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 with one clear line if there are no figures."""
    default = Load()
    parser = argparse.ArgumentParser(prog="python -m cluster.capacity", description=__doc__)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    parser.add_argument("--rate", type=float, default=default.rate)
    parser.add_argument("--tokens", type=float, default=default.tokens)
    parser.add_argument("--used", type=float, default=default.used)
    parser.add_argument("--known", type=float, default=default.known)
    parser.add_argument("--gpu-tokens-per-s", type=float, default=default.gpu_tokens_per_s)
    options = vars(parser.parse_args(arguments))
    file = options.pop("figures")
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"{file} cannot be read: {error}; run `python -m experiments.control_plane`", file=sys.stderr)
        return 2
    load = Load(**options)
    print(table(needs(rows, load), load))
    return 0


if __name__ == "__main__":
    sys.exit(main())
