"""What a deployment of so many requests per second needs, from the measured costs of one request.

    python -m cluster.capacity [--rate 10000] [--tokens 200] [--figures docs/control-plane.json]

Arithmetic only, on figures that `python -m experiments.control_plane` measured; the processors that it
counts are those of the machine that was measured. The pace of a GPU is not measured: give your own.
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
    """What is asked of a deployment."""

    rate: float = 10_000.0
    """Requests per second."""
    tokens: float = 200.0
    """Of an answer; each is streamed as a chunk of its own at worst."""
    used: float = 0.6
    """Share of a processor that may be in use, so that bursts do not queue."""
    known: float = 0.0
    """Share of the queries whose embedding the router still knows."""
    gpu_tokens_per_s: float = 2500.0
    """Tokens per second of one GPU, all its requests together."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What it takes."""

    front: float
    ingress: float
    router: float
    """Processors."""
    relaying: float
    """Of those of the ingress, for chunks alone."""
    gpus: float
    connections: float
    """Between ingress and expert replicas of one GPU each, if one cluster holds them all."""
    replicas_at_most: float
    """Replicas that one controller watches with the share of its processor that may be used."""


def needs(rows: Sequence[Figures], load: Load) -> Needs:
    """The processors, GPUs and connections for a load, by the costs with the most experts."""
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
    """The controller's share of a processor with no replica, and for each one more: a straight line."""
    if len(rows) < 2:
        return rows[0]["idle_controller_share"], 0.0
    count = [row["experts"] for row in rows]
    share = [row["idle_controller_share"] for row in rows]
    middle, height = sum(count) / len(rows), sum(share) / len(rows)
    slope = sum((x - middle) * (y - height) for x, y in zip(count, share, strict=True)) / sum(
        (x - middle) ** 2 for x in count
    )
    return height - slope * middle, slope


def table(found: Needs, load: Load) -> str:
    """The needs as a Markdown table."""
    lines = [
        f"| for {load.rate:g} requests/s of {load.tokens:g} tokens, processors used to {load.used:.0%} | |",
        "|---|---|",
        f"| HTTP front (HAProxy), processors | {found.front:.0f} |",
        f"| ingress, processors = replicas | {found.ingress:.0f} |",
        f"| of these for passing chunks on | {found.relaying:.0f} |",
        f"| router, processors, {load.known:.0%} of the embeddings known | {found.router:.0f} |",
        f"| GPUs at {load.gpu_tokens_per_s:g} tokens/s each (an assumption) | {found.gpus:.0f} |",
        f"| connections between ingress and expert replicas in one cluster | {found.connections:.0f} |",
        f"| replicas that one controller watches | {found.replicas_at_most:.0f} |",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 with one clear line when there are no figures."""
    usual = Load()
    parser = argparse.ArgumentParser(prog="python -m cluster.capacity", description=__doc__)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    parser.add_argument("--rate", type=float, default=usual.rate)
    parser.add_argument("--tokens", type=float, default=usual.tokens)
    parser.add_argument("--used", type=float, default=usual.used)
    parser.add_argument("--known", type=float, default=usual.known)
    parser.add_argument("--gpu-tokens-per-s", type=float, default=usual.gpu_tokens_per_s)
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
