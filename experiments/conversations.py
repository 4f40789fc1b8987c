"""Conversations on simulated experts with a prefix cache: with and without the memory of what they hold.

    OMP_NUM_THREADS=1 python -m experiments.conversations [--seeds 5 6 7 8 9] [--weight 0.1]

Eight turns after a prefix of 1,500 tokens; the task, and with it the best expert, changes between two turns
with a fixed probability. The prefix takes 0.3 s, so only a weight of a tenth compares with the experts'
differences. Engines, qualities and prices are those of `experiments.waits`.
"""

import argparse
import heapq
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import mean

import numpy as np

from deployments.contracts.conversation import Conversation
from deployments.upstream.conversations import Conversations
from experiments.waits import (
    CAPACITY_PER_S,
    COMPLETION_TOKENS,
    NAMES,
    QUALITY,
    Graph,
    Request,
    expected,
    scores,
)
from router.core import Preferences
from router.decide import decide

TURNS = 8
PREFIX_TOKENS, TURN_TOKENS = 1500, 60
THINK_S = 5.0
CHANGES = 0.3
"""Probability that a turn has another task than the one before."""
LOAD = 0.5
"""Of the capacity for requests of `experiments.waits`."""
SECONDS = 200.0
"""In which conversations begin."""
WAYS = ("no price", "priced, no memory", "priced, memory")


@dataclass(slots=True)
class Talk:
    """One conversation."""

    number: int
    tasks: list[str]
    completions: list[int]
    turn: int = 0
    held: dict[int, int] = field(default_factory=dict)
    """Expert → tokens in its prefix cache."""
    prompt: int = PREFIX_TOKENS + TURN_TOKENS
    experts: list[int] = field(default_factory=list)

    @property
    def conversation(self) -> Conversation:
        return Conversation(name=str(self.number).encode())


def talks(rng: random.Random) -> list[tuple[float, Talk]]:
    """Conversations with their beginnings; the same for every way."""
    tasks, counts = list(QUALITY), [row[0] for row in QUALITY.values()]
    made: list[tuple[float, Talk]] = []
    at = rng.expovariate(LOAD * CAPACITY_PER_S / TURNS)
    while at < SECONDS:
        chosen = rng.choices(tasks, counts)
        while len(chosen) < TURNS:
            chosen.append(rng.choices(tasks, counts)[0] if rng.random() < CHANGES else chosen[-1])
        lengths = [max(2, round(COMPLETION_TOKENS * rng.lognormvariate(0, 0.6))) for _ in range(TURNS)]
        made.append((at, Talk(len(made), chosen, lengths)))
        at += rng.expovariate(LOAD * CAPACITY_PER_S / TURNS)
    return made


def run(way: str, weight: float, seed: int) -> tuple[list[Request], list[Talk]]:
    """All turns of one run."""
    graph, made = Graph(1), talks(random.Random(seed))
    memory = Conversations(lambda: graph.now)
    due = [(at, talk.number) for at, talk in made]
    heapq.heapify(due)
    of: dict[int, Talk] = {}
    requests: list[Request] = []
    while due or graph.next_at() < math.inf:
        if due and due[0][0] < graph.next_at():
            graph.now, number = heapq.heappop(due)
            talk = made[number][1]
            request = Request(graph.now, talk.tasks[talk.turn], talk.prompt, talk.completions[talk.turn], 0)
            known = memory.cached_tokens("", talk.conversation) if way == WAYS[2] else {}
            expert = _priced(graph, request, known, 0.0 if way == WAYS[0] else weight)
            memory.remember("", talk.conversation, NAMES[expert], talk.prompt)
            request.prompt = talk.prompt - min(talk.prompt, talk.held.get(expert, 0))
            talk.held[expert] = talk.prompt + request.completion
            talk.experts.append(expert)
            of[id(request)] = talk
            requests.append(request)
            graph.send(request, expert)
            continue
        what, request = graph.step()
        if what == "end":
            talk = of.pop(id(request))
            talk.turn += 1
            talk.prompt += request.completion + TURN_TOKENS
            if talk.turn < TURNS:
                heapq.heappush(due, (graph.now + THINK_S, talk.number))
    return requests, [talk for _, talk in made]


def _priced(graph: Graph, request: Request, held: Mapping[str, int], weight: float) -> int:
    found = expected(graph, request, held)
    ranked = decide(
        scores(request.task),
        None,
        preferences=Preferences(latency_weight=weight),
        seconds=(found.latency + found.imposed)[None, :] / 1000,
    )
    return int(ranked.best[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 6, 7, 8, 9])
    parser.add_argument("--weight", type=float, default=0.1)
    options = parser.parse_args()
    print("| choice | TTFT p50, s | TTFT p90, s | prefilled tokens a turn | turns that stay | quality |")
    print("|---|---|---|---|---|---|")
    for way in WAYS:
        rows = [_figures(*run(way, options.weight, seed)) for seed in options.seeds]
        p50, p90, prefilled, stay, quality = (mean(column) for column in zip(*rows, strict=True))
        print(f"| {way} | {p50:.3f} | {p90:.3f} | {prefilled:.0f} | {stay:.1%} | {quality:.4f} |", flush=True)


def _figures(requests: list[Request], made: list[Talk]) -> tuple[float, float, float, float, float]:
    later = [(a, b) for talk in made for a, b in zip(talk.experts, talk.experts[1:], strict=False)]
    first_s = [request.first_at - request.at for request in requests]
    return (
        float(np.percentile(first_s, 50)),
        float(np.percentile(first_s, 90)),
        mean(request.prompt for request in requests),
        mean(a == b for a, b in later),
        mean(QUALITY[request.task][1 + request.expert] for request in requests),
    )


if __name__ == "__main__":
    main()
