"""Engines that share their hardware: questions a second of all experts against the best expert alone.

    OMP_NUM_THREADS=1 python -m experiments.shared_hardware [--seeds 5 6 7 8 9] [--weights 0.01]

Each client sends its next question once the last one is answered. Engines, qualities and prices are those of
`experiments.waits`, but an engine's tokens take as many times as long as engines are busy.
"""

import argparse
import random
from collections.abc import Callable
from statistics import mean

from experiments.waits import (
    COMPLETION_TOKENS,
    PROMPT_TOKENS,
    QUALITY,
    SPREAD,
    Choice,
    Graph,
    Request,
    priced,
    today,
)

CLIENTS = (1, 2, 4, 8, 16, 32)
SECONDS, WARM_UP_S = 240.0, 60.0


def alone(graph: Graph, request: Request) -> int | None:
    """The expert that is best on average, for every question."""
    return 0


def run(choice: Choice, clients: int, seed: int) -> list[Request]:
    """All requests that were answered."""
    rng = random.Random(f"{seed} {clients}")
    graph = Graph(1, learns=choice not in (today, alone), shared=True)
    tasks, counts = list(QUALITY), [row[0] for row in QUALITY.values()]
    answered: list[Request] = []

    def ask() -> None:
        prompt = round(PROMPT_TOKENS * rng.lognormvariate(0, SPREAD))
        completion = max(2, round(COMPLETION_TOKENS * rng.lognormvariate(0, SPREAD)))
        request = Request(graph.now, rng.choices(tasks, counts)[0], prompt, completion, 0)
        expert = choice(graph, request)
        if expert is not None:
            graph.send(request, expert)

    for _ in range(clients):
        ask()
    while graph.now < SECONDS:
        what, request = graph.step()
        if what == "end":
            answered.append(request)
            ask()
    return answered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 6, 7, 8, 9])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.01])
    options = parser.parse_args()
    choices: dict[str, Callable[[Graph, Request], int | None]] = {"best alone": alone, "today": today}
    choices |= {f"latency_weight {weight:g}": priced(weight) for weight in options.weights}
    print("| clients | choice | answers, 1/s | × alone | quality | time p50, s | shares |")
    print("|---|---|---|---|---|---|---|")
    for clients in CLIENTS:
        base = 0.0
        for name, choice in choices.items():
            done = [run(choice, clients, seed) for seed in options.seeds]
            counted = [one for answered in done for one in answered if one.ended_at >= WARM_UP_S]
            per_s = len(counted) / len(done) / (SECONDS - WARM_UP_S)
            base = base or per_s
            quality = mean(QUALITY[one.task][1 + one.expert] for one in counted)
            middle_s = sorted(one.ended_at - one.at for one in counted)[len(counted) // 2]
            shares = ", ".join(f"{mean(one.expert == expert for one in counted):.0%}" for expert in range(3))
            print(
                f"| {clients} | {name} | {per_s:.2f} | {per_s / base:.2f} | {quality:.4f} | "
                f"{middle_s:.1f} | {shares} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
