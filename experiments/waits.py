"""Waits with a price on simulated experts: goodput, quality and cost against choices that ignore load.

    OMP_NUM_THREADS=1 python -m experiments.waits [--seeds 5 6 7 8 9] [--weights 0.01] [--ingresses 1]

Virtual time: engines with slots and a batch that slows its tokens. Scores and qualities are the mean
recorded quality of three of MMLU-Pro's experts by the question's task, so that a router knows exactly what
it gives up. Everything above `main` was fixed before the first run; weights are chosen on seeds 0 to 4.
"""

import argparse
import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from statistics import mean
from types import MappingProxyType

import numpy as np

from deployments.contracts.messages import ReplicaLoad
from deployments.upstream.load import NOTHING, Begun, LoadEstimate, Present, loads_now
from router.assignment import Queue, Times, times
from router.core import FloatArray, Preferences
from router.decide import decide
from router.experts import Price

NAMES = ("gemini-1.5-pro-002", "gemini-1.5-flash-002", "Meta-Llama-3_1-70B-Instruct")
QUALITY = {
    "biology": (505, 0.869, 0.842, 0.816), "business": (564, 0.806, 0.716, 0.660),
    "chemistry": (777, 0.604, 0.655, 0.589), "computer science": (279, 0.720, 0.631, 0.667),
    "economics": (571, 0.826, 0.760, 0.762), "engineering": (672, 0.608, 0.419, 0.478),
    "health": (586, 0.750, 0.635, 0.689), "history": (273, 0.692, 0.586, 0.667),
    "law": (767, 0.558, 0.430, 0.475), "math": (917, 0.519, 0.618, 0.609),
    "other": (636, 0.723, 0.647, 0.637), "philosophy": (345, 0.730, 0.614, 0.646),
    "physics": (900, 0.800, 0.719, 0.584), "psychology": (554, 0.837, 0.763, 0.773),
}  # fmt: skip
"""Task → its questions, and the mean quality of each expert on them, as recorded."""
PRICES = (Price(1.25, 5.0), Price(0.075, 0.3), Price(0.35, 0.4))
LOADS = (0.3, 0.6, 0.9, 1.2)
ARRIVALS = ("Poisson", "bursts")
SECONDS = 300.0
"""Of arrivals; the engines finish what came."""
WARM_UP_S = 60.0
"""Requests that arrive before are served and not counted."""
SLO_TTFT_S, SLO_TOKEN_S = 1.0, 0.05
PROMPT_TOKENS, COMPLETION_TOKENS, SPREAD = 300, 200, 0.6
"""Medians and the spread of their logarithms; the router knows the prompt and the median of completions."""
MEAN_BY_MEDIAN = math.exp(SPREAD**2 / 2)
BURST_S, PAUSE_S = 10.0, 20.0


@dataclass(frozen=True)
class Speed:
    """How fast one simulated engine is."""

    slots: int
    overhead_s: float
    prefill_s: float
    """For each token of the prompt."""
    token_s: float
    added_s: float
    """Added to each token's time by each request in the batch."""

    @property
    def per_s(self) -> float:
        """Requests that it completes in a second with all slots busy."""
        first_s = self.overhead_s + self.prefill_s * PROMPT_TOKENS * MEAN_BY_MEDIAN
        answer_s = COMPLETION_TOKENS * MEAN_BY_MEDIAN * (self.token_s + self.added_s * self.slots)
        return self.slots / (first_s + answer_s)


SPEEDS = (
    Speed(48, 0.10, 0.0002, 0.020, 0.0004),
    Speed(12, 0.05, 0.0001, 0.010, 0.0006),
    Speed(12, 0.05, 0.0002, 0.015, 0.0008),
)
CAPACITY_PER_S = sum(speed.per_s for speed in SPEEDS)


@dataclass(slots=True, eq=False)
class Request:
    """One request on its way."""

    at: float
    task: str
    prompt: int
    completion: int
    ingress: int
    expert: int = -1
    begun: Begun = NOTHING
    expected: tuple[float, float] | None = None
    """Expected seconds to the first token and to the end."""
    first_at: float = math.inf
    ended_at: float = math.inf

    @property
    def within_slo(self) -> bool:
        token_s = (self.ended_at - self.first_at) / max(1, self.completion - 1)
        return self.first_at - self.at <= SLO_TTFT_S and token_s <= SLO_TOKEN_S


class Engine:
    """Continuous batching: every running request gets its tokens at the pace of the whole batch.

    Args:
        speed: alone on its hardware.
        sharing: how many engines share it now.
    """

    def __init__(self, speed: Speed, sharing: Callable[[], int] = lambda: 1) -> None:
        self._speed = speed
        self._sharing = sharing
        self._now = 0.0
        self._tokens = 0.0
        """Tokens that a request would have that ran all the time."""
        self._prefills: list[tuple[float, int, Request]] = []
        self._decodes: list[tuple[float, int, Request]] = []
        self.waiting: deque[Request] = deque()
        self._number = 0

    @property
    def running(self) -> int:
        return len(self._prefills) + len(self._decodes)

    def add(self, now: float, request: Request) -> None:
        self.advance(now)
        self.waiting.append(request)
        self._admit()

    def next_at(self) -> float:
        """When the next prefill or answer ends."""
        at = self._prefills[0][0] if self._prefills else math.inf
        if self._decodes:
            at = min(at, self._now + (self._decodes[0][0] - self._tokens) * self._token_s())
        return at

    def step(self) -> tuple[str, Request]:
        """Advance to it; which of the two it was, and of which request."""
        at = self.next_at()
        if self._prefills and self._prefills[0][0] <= at:
            self.advance(at)
            _, number, request = heapq.heappop(self._prefills)
            request.first_at = at + self._token_s()
            heapq.heappush(self._decodes, (self._tokens + request.completion, number, request))
            return "first", request
        self.advance(at)
        _, _, request = heapq.heappop(self._decodes)
        request.ended_at = max(at, request.first_at)
        self._admit()
        return "end", request

    def _token_s(self) -> float:
        alone_s = self._speed.token_s + self._speed.added_s * max(1, self.running)
        return alone_s * max(1, self._sharing())

    def advance(self, now: float) -> None:
        self._tokens += (now - self._now) / self._token_s()
        self._now = now

    def _admit(self) -> None:
        while self.waiting and self.running < self._speed.slots:
            request = self.waiting.popleft()
            self._number += 1
            due = self._now + self._speed.overhead_s + self._speed.prefill_s * request.prompt
            heapq.heappush(self._prefills, (due, self._number, request))


class Graph:
    """The engines, and what each ingress replica knows of them.

    Args:
        ingresses: replicas of the ingress.
        learns: whether they learn the engines' times.
        shared: whether all engines share their hardware: an engine's tokens take as many times as long as
            engines are busy.
    """

    def __init__(self, ingresses: int, *, learns: bool = True, shared: bool = False) -> None:
        self._learns = learns
        self.now = 0.0
        self._shared = shared
        sharing = {"sharing": self._busy} if shared else {}
        self.engines = [Engine(speed, **sharing) for speed in SPEEDS]
        self.loads = [[LoadEstimate(lambda: self.now) for _ in NAMES] for _ in range(ingresses)]
        self.in_flight = [[0] * len(NAMES) for _ in range(ingresses)]

    def send(self, request: Request, expert: int) -> None:
        request.expert = expert
        self.in_flight[request.ingress][expert] += 1
        mine = self.in_flight[request.ingress][expert]
        if self._learns:
            request.begun = self.loads[request.ingress][expert].begun(request.prompt, mine, UNBOUNDED)
        self._advance()
        self.engines[expert].add(self.now, request)

    def step(self) -> tuple[str, Request]:
        """Advance to the next event of the engines; what it was, and of which request."""
        due = [engine.next_at() for engine in self.engines]
        self.now = min(due)
        expert = due.index(self.now)
        self._advance()
        what, request = self.engines[expert].step()
        load, begun = self.loads[request.ingress][expert], request.begun
        if what == "end":
            self.in_flight[request.ingress][expert] -= 1
        if not self._learns:
            return what, request
        if what == "first":
            seconds = request.first_at - request.at
            report = ReplicaLoad(self.engines[expert].running, len(self.engines[expert].waiting))
            load.reported(report, self.in_flight[request.ingress][expert], 1)
            load.first_byte(begun, seconds)
        else:
            first_s = request.first_at - request.at
            load.ended(begun, request.ended_at - request.at, request.completion, first_s)
        return what, request

    def next_at(self) -> float:
        return min(engine.next_at() for engine in self.engines)

    def _busy(self) -> int:
        return sum(engine.running > 0 for engine in self.engines)

    def _advance(self) -> None:
        """Before one engine's load changes the pace of all."""
        if self._shared:
            for engine in self.engines:
                engine.advance(self.now)


UNBOUNDED = 1_000_000
Choice = Callable[[Graph, Request], int | None]
"""The column of the expert; `None` where none is eligible. Costs break no tie, as no task has one."""


@cache
def scores(task: str) -> FloatArray:
    return np.array([QUALITY[task][1:]])


@cache
def best_for(task: str) -> int:
    """Where the load does not count."""
    return int(decide(scores(task), None, preferences=Preferences()).best[0])


def today(graph: Graph, request: Request) -> int | None:
    """The best score, whatever the load."""
    return best_for(request.task)


def expected(
    graph: Graph, request: Request, held: Mapping[str, int] = MappingProxyType({}), *, limited: bool = False
) -> Times:
    """Expected times of a request on every expert, as its ingress replica knows them; NaN before that.

    Args:
        graph: the engines.
        request: the request.
        held: expert → tokens of its prompt in the expert's cache.
        limited: whether a limit on time excludes experts.
    """
    estimates, mine = graph.loads[request.ingress], graph.in_flight[request.ingress]
    now = loads_now(
        {
            name: Present(estimate, flying, UNBOUNDED, held.get(name, 0))
            for name, estimate, flying in zip(NAMES, estimates, mine, strict=True)
        }
    )
    if limited:
        now = {name: now[name].faded(one.trust()) for name, one in zip(NAMES, estimates, strict=True) if now}
    prompt, completion = np.full(len(NAMES), request.prompt), np.full(len(NAMES), COMPLETION_TOKENS)
    return times(now, prompt.astype(float), completion.astype(float), Queue(NAMES, {}), NAMES)


def priced(weight: float, *, limited: bool = False) -> Choice:
    """The best score less the price of the expected time, among experts within a limit.

    Args:
        weight: the price; 0 leaves the limit alone.
        limited: whether the expected time to the first token has to be within the objective.
    """

    def choose(graph: Graph, request: Request) -> int | None:
        found = expected(graph, request, limited=limited)
        eligible = ~(found.ttft > 1000 * SLO_TTFT_S)[None, :] if limited else None
        ranked = decide(
            scores(request.task),
            None,
            preferences=Preferences(latency_weight=weight),
            eligible=eligible,
            seconds=(found.latency + found.imposed)[None, :] / 1000,
        )
        if not ranked.eligible[0]:
            return None
        best = int(ranked.best[0])
        if np.isfinite(found.latency[best]):
            first_ms, end_ms = float(found.ttft[best]), float(found.latency[best])
            exact_ms = first_ms + (end_ms - first_ms) * request.completion / COMPLETION_TOKENS
            request.expected = first_ms / 1000, exact_ms / 1000
        return best

    return choose


def least_loaded(graph: Graph, request: Request) -> int | None:
    """The expert with the smallest share of busy slots, as this ingress replica knows it; no quality."""
    mine = graph.in_flight[request.ingress]
    return min(range(len(NAMES)), key=lambda column: mine[column] / SPEEDS[column].slots)


def arrivals(load: float, rng: random.Random, *, bursts: bool) -> Iterator[float]:
    """Poisson arrivals, or the same number in bursts with pauses between them."""
    rate = load * CAPACITY_PER_S
    share = BURST_S / (BURST_S + PAUSE_S) if bursts else 1.0
    busy_s = 0.0
    while True:
        busy_s += rng.expovariate(rate / share)
        at = busy_s + (busy_s // BURST_S) * PAUSE_S if bursts else busy_s
        if at > SECONDS:
            return
        yield at


def run(choice: Choice, load: float, seed: int, *, bursts: bool, ingresses: int) -> list[Request]:
    """All requests of one run; the same for every choice."""
    rng = random.Random(f"{seed} {load} {bursts}")
    tasks, counts = list(QUALITY), [row[0] for row in QUALITY.values()]
    requests = []
    for at in arrivals(load, rng, bursts=bursts):
        prompt = round(PROMPT_TOKENS * rng.lognormvariate(0, SPREAD))
        completion = max(2, round(COMPLETION_TOKENS * rng.lognormvariate(0, SPREAD)))
        task = rng.choices(tasks, counts)[0]
        requests.append(Request(at, task, prompt, completion, rng.randrange(1_000_000) % ingresses))
    graph = Graph(ingresses, learns=choice not in (today, least_loaded))
    for request in requests:
        while graph.next_at() <= request.at:
            graph.step()
        graph.now = request.at
        expert = choice(graph, request)
        if expert is not None:
            graph.send(request, expert)
    while graph.next_at() < math.inf:
        graph.step()
    return requests


@dataclass
class Figures:
    """Of one choice under one load, a value for each seed."""

    goodput: list[float] = field(default_factory=list)
    served: list[float] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    usd: list[float] = field(default_factory=list)
    ttft_s: list[float] = field(default_factory=list)
    errors: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    def add(self, requests: list[Request]) -> None:
        counted = [request for request in requests if request.at >= WARM_UP_S]
        served = [request for request in counted if request.expert >= 0]
        self.goodput.append(sum(request.within_slo for request in counted) / (SECONDS - WARM_UP_S))
        self.served.append(len(served) / len(counted))
        if not served:
            return
        self.quality.append(mean(QUALITY[request.task][1 + request.expert] for request in served))
        self.usd.append(mean(PRICES[one.expert].cost_usd(one.prompt, one.completion) for one in served))
        self.ttft_s.append(float(np.percentile([one.first_at - one.at for one in served], 90)))
        for one in served:
            if one.expected is not None:
                observed = one.first_at - one.at, one.ended_at - one.at
                for errors, expected, seen in zip(self.errors, one.expected, observed, strict=True):
                    errors.append(abs(expected - seen) / seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 6, 7, 8, 9])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.01])
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS, help="shares of the capacity")
    parser.add_argument("--arrivals", nargs="+", choices=ARRIVALS, default=ARRIVALS)
    parser.add_argument("--ingresses", type=int, default=1, help="replicas of the ingress")
    options = parser.parse_args()
    choices: dict[str, Choice] = {
        "today": today,
        "today, max_ttft_ms": priced(0.0, limited=True),
        "least loaded": least_loaded,
    }
    for weight in options.weights:
        choices[f"latency_weight {weight:g}"] = priced(weight)
        choices[f"latency_weight {weight:g}, max_ttft_ms"] = priced(weight, limited=True)
    shares = ", ".join(f"{speed.per_s / CAPACITY_PER_S:.0%}" for speed in SPEEDS)
    print(f"Capacity {CAPACITY_PER_S:.1f} requests/s ({shares}), seeds {options.seeds}.\n")
    print(
        "| arrivals | load | choice | goodput, 1/s | × today | served | quality | US$/1000 | TTFT p90, s "
        "| errors |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for arriving in options.arrivals:
        bursts = arriving == "bursts"
        for load in options.loads:
            base = 0.0
            for name, choice in choices.items():
                figures = Figures()
                for seed in options.seeds:
                    figures.add(run(choice, load, seed, bursts=bursts, ingresses=options.ingresses))
                goodput = mean(figures.goodput)
                base = base or goodput
                print(
                    f"| {arriving} | {load} | {name} | {goodput:.2f} | "
                    f"{goodput / base if base else math.nan:.2f} | {mean(figures.served):.0%} | "
                    f"{_mean(figures.quality):.4f} | "
                    f"{1000 * _mean(figures.usd):.3f} | {_mean(figures.ttft_s):.2f} | "
                    f"{_errors(figures)} |",
                    flush=True,
                )


def _mean(values: list[float]) -> float:
    """NaN where no request was served."""
    return mean(values) if values else math.nan


def _errors(figures: Figures) -> str:
    """Median and 90th percentile of the relative errors of both expected times."""
    return "; ".join(
        f"{np.median(errors):.0%}, {np.percentile(errors, 90):.0%}" for errors in figures.errors if errors
    )


if __name__ == "__main__":
    main()
