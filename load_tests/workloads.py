"""Seeded requests: what is asked. The same seed gives the same bodies in the same order.

Pure. The questions are of the kinds that the pocket experts know (sums, words, an atlas), so that
routing has something to choose between; nothing here imports them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

SYLLABLES = ("ka", "ro", "mi", "te", "lu", "so", "ve", "na", "pi", "do", "fa", "gu")
COUNTRIES = ("France", "Japan", "Brazil", "Kenya", "Norway", "Egypt", "Peru", "India", "Spain", "Chile")
FACTS = ("capital", "currency", "continent", "main language")
STYLES = ("Answer in one word.", "Answer briefly and clearly.", "You are a patient teacher.", "Be exact.")
FILLER = (
    "the caravan reached the river before noon and waited there for the others",
    "each account lists the goods, their weight and the name of whoever signed for them",
    "nobody in the village remembered when the old bridge had been built",
    "the letter was copied twice and sent along two different roads",
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to be sent."""

    kind: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Shape:
    """What all requests of a load have in common."""

    model: str = "auto"
    max_tokens: int = 32
    stream: bool = True
    path: str = "/v1/chat/completions"
    long_words: int = 190
    extra: tuple[tuple[str, Any], ...] = ()
    """Further fields of every body, such as `ignore_eos`."""

    def body(self, messages: list[dict[str, str]], max_tokens: int | None = None) -> bytes:
        """The JSON body with these messages."""
        fields: dict[str, Any] = {"model": self.model, "max_tokens": max_tokens or self.max_tokens}
        if self.path == "/v1/completions":
            fields["prompt"] = "\n".join(message["content"] for message in messages)
        else:
            fields["messages"] = messages
        if self.stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(fields | dict(self.extra)).encode()


def question(rng: random.Random) -> str:
    """A short question of one of three domains, about 10 to 30 tokens."""
    domain = rng.randrange(3)
    if domain == 0:
        a, b = rng.randrange(2, 100), rng.randrange(2, 100)
        return rng.choice(
            (f"What is {a} + {b}?", f"Take {min(a, b)} away from {max(a, b)}.", f"{a} plus {b}")
        )
    if domain == 1:
        word = "".join(rng.choices(SYLLABLES, k=rng.randint(2, 4)))
        return rng.choice((f"Spell the word {word} backwards.", f"How many letters are in {word}?"))
    return f"What is the {rng.choice(FACTS)} of {rng.choice(COUNTRIES)}?"


def short(shape: Shape, rng: random.Random) -> Ask:
    """One short question, mixed domains."""
    return Ask("short", shape.path, shape.body([{"role": "user", "content": question(rng)}]))


def long(shape: Shape, rng: random.Random) -> Ask:
    """A long text before the question."""
    words: list[str] = []
    while len(words) < shape.long_words:
        words += rng.choice(FILLER).split()
    text = " ".join(words[: shape.long_words]) + ". " + question(rng)
    return Ask("long", shape.path, shape.body([{"role": "user", "content": text}]))


def chat(shape: Shape, rng: random.Random) -> Ask:
    """A later turn of a conversation; many conversations share a system prompt."""
    messages = [{"role": "system", "content": rng.choice(STYLES)}]
    history = random.Random(rng.randrange(16))
    for _ in range(history.randint(1, 3)):
        messages += [
            {"role": "user", "content": question(history)},
            {"role": "assistant", "content": str(history.randrange(200))},
        ]
    messages.append({"role": "user", "content": question(rng)})
    return Ask("chat", shape.path, shape.body(messages))


def repeated(shape: Shape, rng: random.Random) -> Ask:
    """The same question every time: what a cache is for."""
    return Ask("repeated", shape.path, shape.body([{"role": "user", "content": "What is 12 + 30?"}]))


def thirty(shape: Shape, rng: random.Random) -> Ask:
    """A query of about thirty tokens, never the same twice: no cache helps."""
    words = " ".join("".join(rng.choices(SYLLABLES, k=2)) for _ in range(5))
    content = f"Please tell me the answer to this: {question(rng)} ({rng.randrange(10**6)}, {words})"
    return Ask("thirty", shape.path, shape.body([{"role": "user", "content": content}]))


def mixed(shape: Shape, rng: random.Random) -> Ask:
    """Six short, two long, two chat of ten."""
    return rng.choices((short, long, chat), weights=(6, 2, 2))[0](shape, rng)


WORKLOADS: dict[str, Callable[[Shape, random.Random], Ask]] = {
    "short": short,
    "long": long,
    "chat": chat,
    "mixed": mixed,
    "repeated": repeated,
    "thirty": thirty,
}


def asks(workload: str, shape: Shape, seed: int | str) -> Iterator[Ask]:
    """An endless stream of requests.

    Raises:
        ValueError: there is no such workload.
    """
    if workload not in WORKLOADS:
        raise ValueError(f"the workload is {workload!r}, expected one of {', '.join(WORKLOADS)}")
    make = WORKLOADS[workload]
    rng = random.Random(f"{workload}/{seed}")
    while True:
        yield make(shape, rng)
