"""Seeded requests: the same seed gives the same bodies in the same order.

Pure. The questions are of the kinds that the pocket experts know (sums, words, an atlas), so that routing
has a choice; imports none of them.
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
    "each account lists the goods, their weight and the name of each buyer and seller",
    "few in the village remembered when the old bridge had been built",
    "the letter was copied twice and sent along two different roads",
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a load."""

    kind: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Shape:
    """Common properties of all requests of a load."""

    model: str = "auto"
    max_tokens: int = 32
    stream: bool = True
    path: str = "/v1/chat/completions"
    long_words: int = 190
    extra: tuple[tuple[str, Any], ...] = ()
    """Further fields of every body, such as `ignore_eos`."""

    def body(self, messages: list[dict[str, str]], max_tokens: int | None = None) -> bytes:
        """Return the JSON body with these messages."""
        fields: dict[str, Any] = {"model": self.model, "max_tokens": max_tokens or self.max_tokens}
        if self.path == "/v1/completions":
            fields["prompt"] = "\n".join(message["content"] for message in messages)
        else:
            fields["messages"] = messages
        if self.stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(fields | dict(self.extra)).encode()


def question(rng: random.Random) -> str:
    """Draw a short question of one of three domains, about 10 to 30 tokens."""
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


def short(shape: Shape, rng: random.Random) -> Request:
    """Draw a short question of any domain."""
    return Request("short", shape.path, shape.body([{"role": "user", "content": question(rng)}]))


def long(shape: Shape, rng: random.Random) -> Request:
    """Draw a question after a long text."""
    words: list[str] = []
    while len(words) < shape.long_words:
        words += rng.choice(FILLER).split()
    text = " ".join(words[: shape.long_words]) + ". " + question(rng)
    return Request("long", shape.path, shape.body([{"role": "user", "content": text}]))


def chat(shape: Shape, rng: random.Random) -> Request:
    """Draw a later turn of a conversation; many conversations share a system prompt."""
    messages = [{"role": "system", "content": rng.choice(STYLES)}]
    history = random.Random(rng.randrange(16))
    for _ in range(history.randint(1, 3)):
        messages += [
            {"role": "user", "content": question(history)},
            {"role": "assistant", "content": str(history.randrange(200))},
        ]
    messages.append({"role": "user", "content": question(rng)})
    return Request("chat", shape.path, shape.body(messages))


def repeated(shape: Shape, rng: random.Random) -> Request:
    """Return the same question every time, which a cache can serve."""
    return Request("repeated", shape.path, shape.body([{"role": "user", "content": "What is 12 + 30?"}]))


def thirty(shape: Shape, rng: random.Random) -> Request:
    """Draw a query of about thirty tokens, never the same twice: no cache helps."""
    words = " ".join("".join(rng.choices(SYLLABLES, k=2)) for _ in range(5))
    content = f"Please give me the answer to this: {question(rng)} ({rng.randrange(10**6)}, {words})"
    return Request("thirty", shape.path, shape.body([{"role": "user", "content": content}]))


def mixed(shape: Shape, rng: random.Random) -> Request:
    """Draw from six parts short, two long and two chat."""
    return rng.choices((short, long, chat), weights=(6, 2, 2))[0](shape, rng)


WORKLOADS: dict[str, Callable[[Shape, random.Random], Request]] = {
    "short": short,
    "long": long,
    "chat": chat,
    "mixed": mixed,
    "repeated": repeated,
    "thirty": thirty,
}


def requests(workload: str, shape: Shape, seed: int | str) -> Iterator[Request]:
    """Yield requests without end.

    Raises:
        ValueError: there is no such workload.
    """
    if workload not in WORKLOADS:
        raise ValueError(f"the workload is {workload!r}, expected one of {', '.join(WORKLOADS)}")
    make = WORKLOADS[workload]
    rng = random.Random(f"{workload}/{seed}")
    while True:
        yield make(shape, rng)
