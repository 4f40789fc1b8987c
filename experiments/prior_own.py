"""Probes that were written for this project: questions, requests, and instructions whose form is checked."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INPUTS = Path(__file__).parent / "prior_inputs"
QUESTIONS = INPUTS / "questions.json"
"""Kind → task → questions, each with its answer first and then three wrong ones."""
TOPICS = [
    "rain in autumn",
    "an old bicycle",
    "the smell of bread",
    "a lighthouse",
    "learning to swim",
    "a busy market",
    "a lost umbrella",
    "the first snow",
    "a quiet library",
    "a night train",
    "growing tomatoes",
    "a broken clock",
]
WORDS = [
    "harbour",
    "window",
    "garden",
    "lantern",
    "river",
    "silver",
    "meadow",
    "copper",
    "winter",
    "candle",
    "orchard",
    "pebble",
]
LISTS = ["fruits", "rivers", "tools", "colours", "birds", "sports", "cities", "instruments"]
REQUESTS = INPUTS / "requests.json"
"""Requests as people write them, by kind: without answers, so that benchmarks alone do not define a kind."""
EACH = 8
"""Probes of each form."""


def questions() -> Iterator[dict[str, Any]]:
    """Questions with four choices, in an order drawn for each."""
    for kind, tasks in json.loads(QUESTIONS.read_text(encoding="utf-8")).items():
        for task, asked in tasks.items():
            for number, (question, answer, *wrong) in enumerate(asked):
                choices = [answer, *wrong]
                random.Random(f"{task}/{number}").shuffle(choices)
                lines = [f"{letter}. {choice}" for letter, choice in zip("ABCD", choices, strict=True)]
                yield {
                    "id": f"questions/{task}-{number}",
                    "kind": kind,
                    "task": task,
                    "query": "\n".join([question, *lines]),
                    "reference": "ABCD"[choices.index(answer)],
                    "check": "choice",
                    "source": "own",
                }


def requests() -> Iterator[dict[str, Any]]:
    """Requests of our own, for recognising kinds only."""
    for kind, texts in json.loads(REQUESTS.read_text(encoding="utf-8")).items():
        for number, text in enumerate(texts):
            yield {
                "id": f"requests/{kind}-{number}",
                "kind": kind,
                "task": f"request {number % 4}",
                "query": text,
                "reference": "",
                "check": None,
                "source": "own",
            }


def instructions() -> Iterator[dict[str, Any]]:
    """Probes whose response a regular expression checks; seeded."""
    for form, make in enumerate((_length, _capitals, _list, _last_word, _keys, _without, _twice)):
        for number in range(EACH):
            query, pattern = make(random.Random(f"{form}/{number}"))
            yield {
                "id": f"instructions/{form}-{number}",
                "kind": "instruction",
                "task": make.__name__.strip("_"),
                "query": query,
                "reference": pattern,
                "check": "pattern",
                "source": "own",
            }


def _length(rng: random.Random) -> tuple[str, str]:
    count, topic = rng.randint(4, 12), rng.choice(TOPICS)
    return (
        f"Write exactly {count} words about {topic}. Write nothing else.",
        rf"\W*(\S+\s+){{{count - 1}}}\S+\s*",
    )


def _capitals(rng: random.Random) -> tuple[str, str]:
    word = rng.choice(WORDS)
    return f"Reply with the word {word} in capital letters, three times, with commas between.", ", ?".join(
        [word.upper()] * 3
    )


def _list(rng: random.Random) -> tuple[str, str]:
    count, things = rng.randint(3, 6), rng.choice(LISTS)
    return (
        f"List {count} {things}, one on each line. Begin each line with a hyphen and a space, and "
        "write nothing before or after the list.",
        rf"(- [^\n]+\n){{{count - 1}}}- [^\n]+\s*",
    )


def _last_word(rng: random.Random) -> tuple[str, str]:
    word, topic = rng.choice(WORDS), rng.choice(TOPICS)
    return (
        f"Write one sentence about {topic} whose last word is {word}. Use no full stop inside it.",
        rf"[^.!?]*\b{word}[.!]?\s*",
    )


def _keys(rng: random.Random) -> tuple[str, str]:
    first, second = rng.sample(WORDS, 2)
    return (
        f'Return a JSON object with exactly two keys, "{first}" and "{second}", in this order, each with a '
        "whole number as its value. Return only the object, without a code block.",
        rf'\s*\{{\s*"{first}"\s*:\s*-?\d+\s*,\s*"{second}"\s*:\s*-?\d+\s*\}}\s*',
    )


def _without(rng: random.Random) -> tuple[str, str]:
    letter, topic = rng.choice("eao"), rng.choice(TOPICS)
    return (
        f"Describe {topic} in one short sentence that does not contain the letter {letter}.",
        rf"[^{letter}{letter.upper()}]{{8,}}",
    )


def _twice(rng: random.Random) -> tuple[str, str]:
    word, topic = rng.choice(WORDS), rng.choice(TOPICS)
    return (
        f"Write two sentences about {topic}. Begin the whole response with <<{word}>> and end it with "
        f"<<{word}>>, with nothing before or after.",
        rf"<<{word}>>[\s\S]{{10,}}<<{word}>>\s*",
    )
