"""Waits with a price on a running graph: conversations on real engines, a step of load on simulated ones.

    python -m experiments.waits_served [step] [conversations] [--rounds 1] [--seconds 40] [--talks 3]

`conversations`: two engines of the chat model of `make setup`, with prefix caching. Every conversation begins
with 1,500 tokens of its own; its turns go to either engine by their expected times alone, because the
prior expects the same of both. Without memory each turn has another name of a conversation, so the ingress
does not know what an engine holds; the engines' caches are the same in both ways.

`step`: two equal simulated experts; after a third of the load, nine tenths of their capacity.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import httpx
import numpy as np
import yaml
from httpx_sse import aconnect_sse
from tokenizers import Tokenizer

from cluster.local.readiness import wait_until_ready
from cluster.local.run import ROOT, serving

CHAT = "/v1/chat/completions"
PORT = 8240
LONGEST_S = 300.0
MODEL = ROOT / "cluster/local/models/chat"
ENGINES = ("first", "second")
PREFIX_TOKENS, TURN_TOKENS, COMPLETION_TOKENS = 1500, 30, 8
THINK_S, APART_S = 1.0, 6.0
"""Mean time between an answer and the next turn; time between the beginnings of conversations."""
WARM_UP_TOKENS = (100, 800, 400)
"""Prompts from which the ingress learns each engine's times."""
EQUAL = ("left", "right")
SLOTS, TTFT_S, TOKENS_PER_S, TOKENS = 8, 0.2, 40.0, 20
CAPACITY_PER_S = len(EQUAL) * SLOTS / (TTFT_S + TOKENS / TOKENS_PER_S)
BEFORE, AFTER = 0.3, 0.9
"""Loads before and after the step, as shares of the capacity."""
BEFORE_S, SETTLES_S, WINDOW_S = 15.0, 10.0, 10.0
WORDS = ("river", "stone", "market", "winter", "garden", "letter", "window", "story", "harbour", "engine")


Part = tuple[
    Callable[[], list[dict[str, Any]]], Callable[[str, argparse.Namespace], Coroutine[None, None, None]]
]
"""The experts of a part, and what measures them."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What was measured of one turn."""

    expert: str
    ttft_s: float
    prompt: int
    cached: int
    """Tokens of the prompt that the engine had in its cache."""
    text: str


def graph(applications: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The default graph with these experts and the policy from priors."""
    made: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text("utf-8"))
    application = made["applications"][0]
    parts = {part["name"]: part for part in application["deployments"]}
    experts = {one["args"]["name"]: {"app": one["name"]} for one in applications}
    parts["Ingress"]["user_config"] = {"experts": experts}
    parts["Router"]["user_config"] = {}
    made["applications"] = [application, *applications]
    return made


def engines() -> list[dict[str, Any]]:
    """Two engines of the chat model, each with space for all conversations."""
    default = yaml.safe_load((ROOT / "serve_config.yaml").read_text("utf-8"))["applications"][-1]
    engine = default["args"]["engine"] | {
        "dtype": "float32",  # several times faster than bfloat16 on processors without it
        "max_model_len": 4096,
        "kv_cache_memory_bytes": 1 << 29,
        "enable_prefix_caching": True,
        "enable_prompt_tokens_details": True,
    }
    one = {"name": "Expert", "num_replicas": 1, "max_ongoing_requests": 64}
    return [
        default
        | {"name": f"expert-{name}", "deployments": [one]}
        | {"args": default["args"] | {"name": name, "engine": engine}}
        for name in ENGINES
    ]


def simulated() -> list[dict[str, Any]]:
    """Two equal simulated experts."""
    behaviour = {"ttft_ms": 1000 * TTFT_S, "tokens_per_s": TOKENS_PER_S, "slots": SLOTS, "tokens": TOKENS}
    return [
        {
            "name": f"expert-{name}",
            "route_prefix": None,
            "import_path": "deployments.app:build_simulated",
            "args": {"name": name, "behaviour": behaviour},
            "deployments": [{"name": "Expert", "num_replicas": 1, "max_ongoing_requests": 1000}],
        }
        for name in EQUAL
    ]


class Talks:
    """Conversations with the two engines.

    Args:
        client: of the ingress.
        weight: `latency_weight`.
    """

    def __init__(self, client: httpx.AsyncClient, weight: float) -> None:
        self._client, self._weight = client, weight
        self._tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))

    def text(self, rng: random.Random, tokens: int) -> str:
        """Words of so many tokens."""
        ids = self._tokenizer.encode(" ".join(rng.choices(WORDS, k=2 * tokens))).ids[:tokens]
        return str(self._tokenizer.decode(ids))

    async def warm_up(self) -> None:
        """Send each engine prompts of several lengths."""
        rng = random.Random("warm up")
        for tokens in WARM_UP_TOKENS:
            messages = [{"role": "user", "content": self.text(rng, tokens)}]
            await asyncio.gather(*(self._turn(name, messages, None) for name in ENGINES))

    async def all(self, talks: int, turns: int, *, memory: bool, seed: str) -> list[list[Turn]]:
        """All turns of several conversations at a time."""
        made = (self._talk(number, turns, memory=memory, seed=seed) for number in range(talks))
        return await asyncio.gather(*made)

    async def _talk(self, number: int, turns: int, *, memory: bool, seed: str) -> list[Turn]:
        rng = random.Random(f"{seed} {number}")
        messages = [{"role": "system", "content": self.text(rng, PREFIX_TOKENS)}]
        await asyncio.sleep(APART_S * number)
        found: list[Turn] = []
        for turn in range(turns):
            messages.append({"role": "user", "content": self.text(rng, TURN_TOKENS)})
            name = None if memory else f"{seed} {number} {turn}"
            found.append(await self._turn("auto", messages, name))
            messages.append({"role": "assistant", "content": found[-1].text})
            await asyncio.sleep(rng.expovariate(1 / THINK_S))
        return found

    async def _turn(self, model: str, messages: list[dict[str, str]], name: str | None) -> Turn:
        body: dict[str, Any] = {"model": model, "messages": messages, "max_tokens": COMPLETION_TOKENS}
        body |= {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
        if model == "auto":
            body["routing"] = {"latency_weight": self._weight, "experts": list(ENGINES)}
        headers = {} if name is None else {"x-session-id": name}
        usage: dict[str, Any] = {}
        began, first_s, text = time.perf_counter(), 0.0, ""
        async with aconnect_sse(self._client, "POST", CHAT, json=body, headers=headers) as source:
            source.response.raise_for_status()
            expert = source.response.headers["x-router-expert"]
            async for event in source.aiter_sse():
                if event.data == "[DONE]":
                    continue
                part = json.loads(event.data)
                usage = part.get("usage") or usage
                for choice in part["choices"]:
                    if piece := choice["delta"].get("content"):
                        first_s = first_s or time.perf_counter() - began
                        text += piece
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        return Turn(expert, first_s, usage["prompt_tokens"], cached, text)


async def conversations(url: str, options: argparse.Namespace) -> None:
    """Print a row for each way and round, the ways in turn first."""
    async with httpx.AsyncClient(base_url=url, timeout=LONGEST_S) as client:
        talks = Talks(client, options.weight)
        await talks.warm_up()
        print("| round | memory | TTFT p50, s | p90 | later turns p50 | p90 | prefilled | stay | by one |")
        print("|---|---|---|---|---|---|---|---|---|")
        for number in range(options.rounds):
            for memory in (True, False) if number % 2 == 0 else (False, True):
                found = await talks.all(
                    options.talks, options.turns, memory=memory, seed=f"{number} {memory}"
                )
                print(f"| {number} | {'with' if memory else 'without'} | {_row(found)} |", flush=True)


def _row(found: Sequence[Sequence[Turn]]) -> str:
    """TTFT, tokens prefilled a turn, and the shares of later turns that stay and of turns by one engine."""
    turns = [turn for talk in found for turn in talk]
    later = [turn for talk in found for turn in talk[1:]]
    times = [
        float(np.percentile([turn.ttft_s for turn in some], share))
        for some in (turns, later)
        for share in (50, 90)
    ]
    stay = mean(one.expert == after.expert for talk in found for one, after in pairwise(talk))
    prefilled = mean(turn.prompt - turn.cached for turn in turns)
    of_first = mean(turn.expert == ENGINES[0] for turn in turns)
    return " | ".join(f"{value:.2f}" for value in times) + f" | {prefilled:.0f} | {stay:.0%} | {of_first:.0%}"


async def step(url: str, options: argparse.Namespace) -> None:
    """Print the share of one of the two experts, window by window after the step."""
    async with httpx.AsyncClient(base_url=url, timeout=LONGEST_S) as client:
        print("| seed | share of one expert before | windows of 10 s after the step | response p90, s |")
        print("|---|---|---|---|")
        for seed in range(options.rounds):
            calls = await _arrivals(client, options.weight, seed, BEFORE_S + SETTLES_S + options.seconds)
            begins = [BEFORE_S + SETTLES_S + WINDOW_S * n for n in range(int(options.seconds / WINDOW_S))]
            shares = [_share(calls, begin, begin + WINDOW_S) for begin in begins]
            late = [seconds for at, _, seconds in calls if at >= begins[0]]
            print(
                f"| {seed} | {_share(calls, 0, BEFORE_S):.2f} | "
                + ", ".join(f"{share:.2f}" for share in shares)
                + f" | {np.percentile(late, 90):.2f} |",
                flush=True,
            )


def _share(calls: Sequence[tuple[float, str, float]], begin: float, end: float) -> float:
    inside = [expert for at, expert, _ in calls if begin <= at < end]
    return inside.count(EQUAL[0]) / max(1, len(inside))


async def _arrivals(
    client: httpx.AsyncClient, weight: float, seed: int, seconds: float
) -> list[tuple[float, str, float]]:
    """(time of arrival, expert, seconds of the response) of Poisson arrivals with a step."""
    rng, began = random.Random(seed), time.perf_counter()
    body: dict[str, Any] = {
        "model": "auto",
        "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    }
    body |= {"max_tokens": TOKENS, "routing": {"latency_weight": weight, "experts": list(EQUAL)}}

    async def call(at: float) -> tuple[float, str, float]:
        await asyncio.sleep(max(0.0, began + at - time.perf_counter()))
        sent = time.perf_counter()
        response = await client.post(CHAT, json=body)
        response.raise_for_status()
        return at, response.headers["x-router-expert"], time.perf_counter() - sent

    at, due = 0.0, []
    while at < seconds:
        at += rng.expovariate(CAPACITY_PER_S * (BEFORE if at < BEFORE_S else AFTER))
        due.append(call(at))
    return await asyncio.gather(*due)


PARTS: dict[str, Part] = {"step": (simulated, step), "conversations": (engines, conversations)}


def main() -> int:
    """Start one graph, and print the table of each part."""
    parser = argparse.ArgumentParser(prog="python -m experiments.waits_served", description=__doc__)
    parser.add_argument("parts", nargs="+", choices=list(PARTS), metavar="step|conversations")
    parser.add_argument("--talks", type=int, default=3, help="conversations at a time")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1, help="seeds 0, 1, …")
    parser.add_argument("--weight", type=float, default=0.1, help="latency_weight")
    parser.add_argument("--seconds", type=float, default=40.0, help="after the step has settled")
    parser.add_argument("--log", type=Path, default=ROOT / "var" / "waits_served.log")
    options = parser.parse_args()
    applications = [one for part in options.parts for one in PARTS[part][0]()]
    with tempfile.TemporaryDirectory(prefix="to-router-waits-") as folder:
        file = Path(folder) / "serve_config.yaml"
        file.write_text(yaml.safe_dump(graph(applications), sort_keys=False), encoding="utf-8")
        started = time.monotonic()
        with serving(file, port=PORT, log=options.log) as (url, process):
            if not wait_until_ready(url, lambda: process.poll() is None, print):
                print(f"the graph is not ready; see {options.log}", file=sys.stderr)
                return 1
            print(f"ready after {time.monotonic() - started:.0f} s", flush=True)
            for part in options.parts:
                asyncio.run(PARTS[part][1](url, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
