"""Queries a second of `auto` with a price on time, in turn with the generalist alone, on the claims' graph.

    python -m experiments.priced_engines [--weights 0 1 10] [--clients 1 2 4 8 16 32] [--n 64] [--rounds 3]

All engines share the machine's processors, so each that works slows the others. Every round has its own
questions of the train split, and each way serves them once; the first questions of each level only warm up,
which lets the ingress learn the engines' times under that load. Without `--endpoint` it starts the graph of
cluster/local/claims.yaml itself.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from statistics import mean, median

from cluster.local.readiness import wait_until_ready
from cluster.local.run import ROOT, serving
from cluster.pocket.questions import Question, questions
from cluster.pocket.train_policy import CLAIMS
from experiments.claims import HELD_OUT_SEED, PORT, Client
from experiments.claims_report import Round

ALONE = "generalist"
LEVELS = (1, 2, 4, 8, 16, 32)


def measure(
    url: str, weights: Sequence[float], clients: int, rounds: Sequence[Sequence[Question]]
) -> dict[str, list[Round]]:
    """Serve each round's questions in every way, the first way by turns; the first round warms up."""
    routing: dict[str, dict[str, float] | None] = {ALONE: None}
    routing |= {f"latency_weight {weight:g}": {"latency_weight": weight} for weight in weights}
    measured: dict[str, list[Round]] = {way: [] for way in routing}
    ways = list(routing)
    for number, some in enumerate(rounds):
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            model = ALONE if way == ALONE else "auto"
            with Client(url, clients, routing[way]) as client:
                measured[way].append(client.all(some, [model] * len(some)))
    return {way: found[1:] for way, found in measured.items()}


def report(clients: int, measured: dict[str, list[Round]]) -> None:
    """Print a row for each way."""
    alone = [len(some.answers) / some.seconds for some in measured[ALONE]]
    for way, rounds in measured.items():
        rates = [len(some.answers) / some.seconds for some in rounds]
        ratios = sorted(rate / base for rate, base in zip(rates, alone, strict=True))
        answers = [answer for some in rounds for answer in some.answers]
        shares = Counter(answer.expert for answer in answers)
        print(
            f"| {clients} | {way} | {median(rates):.1f} | {median(ratios):.2f} ({ratios[0]:.2f} to "
            f"{ratios[-1]:.2f}) | {mean(answer.right for answer in answers):.3f} | "
            + ", ".join(f"{name} {count / len(answers):.0%}" for name, count in shares.most_common())
            + " |",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", help="a running ingress, such as http://127.0.0.1:8000")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 1.0, 10.0])
    parser.add_argument("--clients", type=int, nargs="+", default=LEVELS)
    parser.add_argument("--n", type=int, default=64, help="questions in each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.endpoint:
        _all(options.endpoint, options)
        return 0
    with serving(CLAIMS.config, port=PORT, log=ROOT / "var" / "claims.log") as (url, process):
        if not wait_until_ready(url, lambda: process.poll() is None, print):
            print("the graph did not start; see var/claims.log", file=sys.stderr)
            return 1
        _all(url, options)
    return 0


def _all(url: str, options: argparse.Namespace) -> None:
    drawn = iter(
        questions("train", n=options.n * (options.rounds + 1) * len(options.clients), seed=HELD_OUT_SEED)
    )
    print("| clients | choice | queries/s | × alone (range) | quality | experts |")
    print("|---|---|---|---|---|---|")
    for clients in options.clients:
        rounds = [list(islice(drawn, options.n)) for _ in range(options.rounds + 1)]
        report(clients, measure(url, options.weights, clients, rounds))


if __name__ == "__main__":
    sys.exit(main())
