"""Questions for the pocket experts: training data of experts and policy, and a held-out test set.

The three splits share no question: each number, word and phrasing belongs to one split. All facts of the
atlas are in the training data, in other phrasings, and divided between the other two splits.
Knows nothing of tokens, models or policies.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MATERIAL = Path(__file__).parent
SPLITS = ("train", "policy", "heldout")
KINDS = {
    "arithmetic": ("add", "subtract"),
    "words": ("reverse", "count", "spell", "last"),
    "atlas": ("capital", "continent", "currency", "language"),
}
"""Task → kinds of question. A specialist knows one task."""

LARGEST_OPERAND = 99
LARGEST_DIGIT = 9
WORD_LENGTHS = (3, 8)
_CONSONANTS = "bcdfghjklmnpqrstvwxyz"
_VOWELS = "aeiou"


@dataclass(frozen=True)
class Question:
    """One question with its only correct answer."""

    task: str
    kind: str
    split: str
    query: str
    reference: str


class QuestionError(ValueError):
    """The questions cannot be drawn."""


def questions(split: str, *, n: int, seed: int, tasks: Sequence[str] = tuple(KINDS)) -> list[Question]:
    """Draw `n` different questions, with tasks and kinds in turn, so that each has an equal share.

    Raises:
        QuestionError: unknown split or task, `n` below 1, or more questions than the split holds.
    """
    if split not in SPLITS:
        raise QuestionError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    unknown = [task for task in tasks if task not in KINDS]
    if unknown or not tasks:
        raise QuestionError(f"tasks are {list(tasks)}, expected some of {', '.join(KINDS)}")
    if n < 1:
        raise QuestionError(f"n is {n}, expected at least 1")
    rng = random.Random(f"{split}/{seed}")
    seen: set[str] = set()
    drawn: list[Question] = []
    for kind in _kinds_in_turn(tasks):
        if len(drawn) == n:
            return drawn
        drawn.append(_new_question(split, kind, rng, seen))
        seen.add(drawn[-1].query)
    raise AssertionError("kinds in turn never end")


def small_sums(split: str, *, n: int, seed: int) -> list[Question]:
    """Draw `n` different sums and differences of two one-digit numbers.

    People try these first, and operands up to 99 are hardly ever both so small.

    Raises:
        QuestionError: there are fewer than `n`.
    """
    digits = range(LARGEST_DIGIT + 1)
    every = [
        Question("arithmetic", kind, split, phrasing.format(a=a, b=b), _result(kind, a, b))
        for kind in KINDS["arithmetic"]
        for phrasing in phrasings()[kind][split]
        for a, b in itertools.product(digits, digits)
        if operands_split(a, b) == split
    ]
    if n > len(every):
        raise QuestionError(f"split {split!r} has {len(every)} small sums, found n = {n}: draw fewer")
    return random.Random(f"{split}/{seed}").sample(every, n)


def draw(split: str, kind: str, rng: random.Random) -> Question:
    """Draw one question of `kind`; the same state of `rng` gives the same question."""
    phrasing = rng.choice(phrasings()[kind][split])
    slots, reference = _DRAWS[kind](kind, split, rng)
    return Question(TASK_OF[kind], kind, split, phrasing.format(**slots), reference)


@cache
def atlas() -> dict[str, dict[str, str]]:
    """Return capital, continent, currency and language of each country."""
    with (MATERIAL / "atlas.csv").open(encoding="utf-8", newline="") as file:
        return {row.pop("country"): row for row in csv.DictReader(file)}


@cache
def common_words() -> tuple[str, ...]:
    """Return English words of three to eight letters."""
    return tuple((MATERIAL / "words.txt").read_text(encoding="utf-8").split())


@cache
def phrasings() -> dict[str, dict[str, list[str]]]:
    """Return the phrasings by kind and split, with the fields `{a}` and `{b}`, `{w}` or `{c}`."""
    data: dict[str, dict[str, list[str]]] = json.loads(
        (MATERIAL / "phrasings.json").read_text(encoding="utf-8")
    )
    return data


def operands_split(a: int, b: int) -> str:
    """Return the split of a pair of operands, in either order: 80 % train, 10 % each of the others."""
    return _eighty_ten_ten(f"{min(a, b)} {max(a, b)}")


def word_split(word: str) -> str:
    """Return the split of a word: 80 % train, 10 % each of the others."""
    return _eighty_ten_ten(word)


def fact_split(kind: str, country: str) -> str:
    """Return the split that tests a fact; every fact is also in the training data, in other phrasings."""
    return "policy" if _percentile(f"{kind} {country}") < 50 else "heldout"


def made_up_word(rng: random.Random) -> str:
    """Return a word that is, more or less, pronounceable."""
    length = rng.randint(*WORD_LENGTHS)
    letters = [rng.choice(_CONSONANTS), rng.choice(_VOWELS)]
    if rng.random() < 0.3:
        letters.reverse()
    while len(letters) < length:
        after_vowel = letters[-1] in _VOWELS
        other = rng.random() < 0.85
        letters.append(rng.choice(_CONSONANTS if after_vowel == other else _VOWELS))
    return "".join(letters)


def _kinds_in_turn(tasks: Sequence[str]) -> Iterator[str]:
    turn = 0
    while True:
        for task in tasks:
            yield KINDS[task][turn % len(KINDS[task])]
        turn += 1


def _new_question(split: str, kind: str, rng: random.Random, seen: set[str]) -> Question:
    for _ in range(10_000):
        question = draw(split, kind, rng)
        if question.query not in seen:
            return question
    raise QuestionError(f"split {split!r} has no further question of kind {kind!r}: draw fewer")


def _percentile(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % 100


def _eighty_ten_ten(key: str) -> str:
    percentile = _percentile(key)
    return "train" if percentile < 80 else "policy" if percentile < 90 else "heldout"


def _draw_operands(kind: str, split: str, rng: random.Random) -> tuple[dict[str, str], str]:
    while True:
        a, b = rng.randint(0, LARGEST_OPERAND), rng.randint(0, LARGEST_OPERAND)
        if operands_split(a, b) == split:
            return {"a": str(a), "b": str(b)}, _result(kind, a, b)


def _result(kind: str, a: int, b: int) -> str:
    return str(a + b if kind == "add" else a - b)


_WORD_ANSWERS: dict[str, Callable[[str], str]] = {
    "reverse": lambda word: word[::-1],
    "count": lambda word: str(len(word)),
    "spell": "-".join,
    "last": lambda word: word[-1],
}


def _draw_word(kind: str, split: str, rng: random.Random) -> tuple[dict[str, str], str]:
    while True:
        word = rng.choice(common_words()) if rng.random() < 0.4 else made_up_word(rng)
        if word_split(word) == split:
            return {"w": word}, _WORD_ANSWERS[kind](word)


def _draw_fact(kind: str, split: str, rng: random.Random) -> tuple[dict[str, str], str]:
    countries = list(atlas())
    while True:
        country = rng.choice(countries)
        if split in ("train", fact_split(kind, country)):
            return {"c": country}, atlas()[country][kind]


_Draw = Callable[[str, str, random.Random], tuple[dict[str, str], str]]
_DRAW_OF_TASK: dict[str, _Draw] = {"arithmetic": _draw_operands, "words": _draw_word, "atlas": _draw_fact}
_DRAWS: dict[str, _Draw] = {kind: _DRAW_OF_TASK[task] for task, kinds in KINDS.items() for kind in kinds}
TASK_OF: dict[str, str] = {kind: task for task, kinds in KINDS.items() for kind in kinds}


def main(argv: Sequence[str] | None = None) -> int:
    """Write questions as JSONL: `query_id`, `query`, `reference`, `task`, `split`."""
    parser = argparse.ArgumentParser(prog="python -m cluster.pocket.questions", description=main.__doc__)
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--n", type=int, required=True, help="how many questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSONL file to write")
    args = parser.parse_args(argv)
    try:
        drawn = questions(args.split, n=args.n, seed=args.seed)
        write_questions(drawn, args.out)
    except (QuestionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {len(drawn)} questions of split {args.split}")
    return 0


def write_questions(drawn: Sequence[Question], out: Path) -> None:
    """Write questions as JSONL for `to-router collect`."""
    lines = [json.dumps(_row(question, i), ensure_ascii=False) for i, question in enumerate(drawn)]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(question: Question, index: int) -> dict[str, str]:
    return {
        "query_id": f"{question.split}-{question.kind}-{index:05d}",
        "query": question.query,
        "reference": question.reference,
        "task": question.task,
        "split": question.split,
    }


if __name__ == "__main__":
    sys.exit(main())
