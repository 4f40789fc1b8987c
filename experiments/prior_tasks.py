"""Probes made from templates of this project: word problems, short programs and orders to deduce; seeded."""

import contextlib
import io
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from router.priors.probes import check_of

EACH = 6
"""Probes of each template."""
NAMES = ["Ada", "Bela", "Carlo", "Dina", "Emil", "Fay", "Gus", "Hana", "Ivo", "Jana"]
GOODS = ["pears", "notebooks", "tickets", "cups", "bulbs", "scarves"]

Made = tuple[str, str]
"""(query, reference)."""


def made() -> Iterator[dict[str, Any]]:
    """All of them."""
    for kind, templates in (("mathematics", WORD_PROBLEMS), ("code", PROGRAMS), ("logic", DEDUCTIONS)):
        for template in templates:
            task = template.__name__.strip("_").replace("_", " ")
            for number in range(EACH):
                query, reference = template(random.Random(f"{task}/{number}"))
                yield {
                    "id": f"{kind}/{task.replace(' ', '-')}-{number}",
                    "kind": kind,
                    "task": task,
                    "query": query,
                    "reference": reference,
                    "check": check_of(reference),
                    "source": "own",
                }


def _shopping(rng: random.Random) -> Made:
    name, (first, second) = rng.choice(NAMES), rng.sample(GOODS, 2)
    a, b, p, q = rng.randint(3, 12), rng.randint(2, 9), rng.randint(2, 7), rng.randint(3, 11)
    paid = (a * p + b * q) // 10 * 10 + rng.choice([10, 20])
    return (
        f"{name} buys {a} {first} at {p} dollars each and {b} {second} at {q} dollars each, and pays with "
        f"{paid} dollars. How many dollars does {name} get back?",
        str(paid - a * p - b * q),
    )


def _journey(rng: random.Random) -> Made:
    hours, more, slow, fast = rng.randint(2, 5), rng.randint(1, 4), rng.randint(40, 60), rng.randint(70, 95)
    return (
        f"A bus drives {hours} hours at {slow} km/h, rests for half an hour, and drives {more} hours at "
        f"{fast} km/h. How many kilometres has it driven?",
        str(hours * slow + more * fast),
    )


def _discount(rng: random.Random) -> Made:
    price, off, coupon = rng.randint(4, 30) * 20, rng.choice([5, 10, 15, 20, 25, 30, 40]), rng.randint(2, 9)
    return (
        f"A jacket costs {price} dollars. Its price is reduced by {off} %, and a coupon then takes off "
        f"another {coupon} dollars. What does it cost in dollars?",
        f"{price * (100 - off) / 100 - coupon:g}",
    )


def _ages(rng: random.Random) -> Made:
    (old, young), years, now = rng.sample(NAMES, 2), rng.randint(3, 12), rng.randint(4, 15)
    apart = rng.randint(2, 20)
    return (
        f"{old} is {apart} years older than {young}. In {years} years the sum of their ages will be "
        f"{2 * now + apart + 2 * years}. How old is {young} today?",
        str(now),
    )


def _shares(rng: random.Random) -> Made:
    parts, unit = rng.sample(range(2, 9), 3), rng.randint(4, 25)
    return (
        f"{sum(parts) * unit} marbles are shared among three children in the ratio "
        f"{parts[0]} : {parts[1]} : {parts[2]}. How many does the one with the largest share get?",
        str(max(parts) * unit),
    )


def _remainder(rng: random.Random) -> Made:
    size, boxes = rng.randint(6, 15), rng.randint(11, 40)
    left = rng.randint(1, size - 1)
    return (
        f"{boxes * size + left} eggs are packed into boxes of {size} until no further box can be filled. "
        f"How many eggs are left over?",
        str(left),
    )


def _geometry(rng: random.Random) -> Made:
    width, length, path = rng.randint(6, 20), rng.randint(21, 40), rng.randint(1, 3)
    return (
        f"A garden is {length} m long and {width} m wide. A path {path} m wide runs around its outside. "
        f"What is the area of the path in square metres?",
        str((length + 2 * path) * (width + 2 * path) - length * width),
    )


def _average(rng: random.Random) -> Made:
    marks = [rng.randint(50, 95) for _ in range(4)]
    last = rng.randint(50, 100)
    wanted = (sum(marks) + last) / 5
    return (
        f"Four tests had the results {', '.join(map(str, marks))}. Which result in the fifth makes the mean "
        f"of all five {wanted:g}?",
        str(last),
    )


def _committee(rng: random.Random) -> Made:
    women, men = rng.randint(4, 7), rng.randint(4, 7)
    return (
        f"A club has {women} women and {men} men. In how many ways can it choose two women and one man?",
        str(women * (women - 1) // 2 * men),
    )


def _percentages(rng: random.Random) -> Made:
    people, share, part = rng.randint(3, 12) * 100, rng.choice([20, 30, 40, 60]), rng.choice([25, 50, 75])
    return (
        f"Of {people} visitors {share} % come by train, and {part} % of these have a season ticket. "
        f"How many visitors come by train without one?",
        f"{people * share * (100 - part) / 10000:g}",
    )


def _printed(code: str) -> Made:
    """A question about what the program prints; the reference is what it does print."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(code, {})  # noqa: S102 - a template of this file
    return (
        f"What does this Python program print?\n\n```python\n{code}\n```",
        output.getvalue().strip(),
    )


def _loop(rng: random.Random) -> Made:
    return _printed(
        f"total = {rng.randint(0, 9)}\nfor i in range({rng.randint(1, 4)}, {rng.randint(9, 15)}, "
        f"{rng.randint(2, 3)}):\n    if i % {rng.randint(2, 4)} == 0:\n        total += "
        f"i * {rng.randint(2, 5)}\n    else:\n        total -= {rng.randint(1, 3)}\nprint(total)"
    )


def _slices(rng: random.Random) -> Made:
    word = "".join(rng.sample("abcdefghklmnoprstuw", rng.randint(9, 12)))
    return _printed(
        f'text = "{word}"\nprint(text[{rng.randint(1, 3)}:{rng.randint(6, 8)}][::-1] + '
        f"text[-{rng.randint(1, 3)}].upper())"
    )


def _dictionary(rng: random.Random) -> Made:
    word = "".join(rng.choice("abcd") for _ in range(rng.randint(10, 14)))
    return _printed(
        f'counts = {{}}\nfor letter in "{word}":\n    counts[letter] = counts.get(letter, 0) + 1\n'
        "best = max(sorted(counts), key=counts.get)\nprint(best, counts[best])"
    )


def _recursion(rng: random.Random) -> Made:
    a, b, start = rng.randint(1, 3), rng.randint(1, 4), rng.randint(5, 8)
    return _printed(
        f"def f(n):\n    if n < 2:\n        return n + {b}\n    return f(n - 1) + {a} * f(n - 2)\n\n"
        f"print(f({start}))"
    )


def _aliases(rng: random.Random) -> Made:
    values = [rng.randint(1, 9) for _ in range(4)]
    return _printed(
        f"a = {values}\nb = a\nc = a[:]\nb.append({rng.randint(10, 19)})\nc[{rng.randint(0, 3)}] = "
        f"{rng.randint(20, 29)}\na.pop({rng.randint(0, 2)})\nprint(sum(a) - sum(c) + len(b))"
    )


def _comprehension(rng: random.Random) -> Made:
    values = [rng.randint(1, 30) for _ in range(7)]
    return _printed(
        f"values = {values}\nprint(sum(x * x for x in values if x % {rng.randint(2, 4)} == 1) "
        f"% {rng.randint(11, 97)})"
    )


def _class(rng: random.Random) -> Made:
    return _printed(
        f"class Account:\n    fee = {rng.randint(1, 4)}\n\n    def __init__(self, amount):\n"
        "        self.amount = amount\n\n    def take(self, amount):\n"
        "        self.amount -= amount + self.fee\n"
        f"        return self\n\n\nfirst = Account({rng.randint(60, 99)})\n"
        f"Account.fee = {rng.randint(5, 9)}\n"
        f"print(first.take({rng.randint(10, 20)}).take({rng.randint(5, 9)}).amount)"
    )


def _bits(rng: random.Random) -> Made:
    a, b = rng.randint(20, 200), rng.randint(20, 200)
    return _printed(
        f"a, b = {a}, {b}\nprint((a & b) + (a ^ b) * {rng.randint(2, 4)} - (b >> {rng.randint(1, 3)}))"
    )


def _exceptions(rng: random.Random) -> Made:
    items = [str(rng.randint(1, 9)) if rng.random() < 0.6 else rng.choice("xyz") for _ in range(6)]
    return _printed(
        f"total = 0\nfor item in {items}:\n    try:\n        total += int(item)\n    except ValueError:\n"
        f"        total *= 2\n    else:\n        total += 1\nprint(total)"
    )


def _order(rng: random.Random) -> Made:
    order = rng.sample(NAMES, 5)
    clues = [f"{a} arrived before {b}." for a, b in pairwise(order)]
    rng.shuffle(clues)
    place = rng.randint(0, 4)
    return (
        f"Five people arrived one after the other. {' '.join(clues)} "
        f"Which of them arrived {('first', 'second', 'third', 'fourth', 'last')[place]}?",
        order[place],
    )


def _turns(rng: random.Random) -> Made:
    sides, turns = ["north", "east", "south", "west"], rng.choices(["left", "right", "around"], k=5)
    at = start = rng.randrange(4)
    for turn in turns:
        at = (at + {"left": -1, "right": 1, "around": 2}[turn]) % 4
    return (
        f"You face {sides[start]} and turn {', then '.join(turns)}. Which way do you face?",
        sides[at],
    )


def _boxes(rng: random.Random) -> Made:
    colours = rng.sample(["red", "blue", "green", "white", "black"], 4)
    moved = list(colours)
    steps = []
    for _ in range(4):
        i, j = sorted(rng.sample(range(4), 2))
        moved[i], moved[j] = moved[j], moved[i]
        steps.append(f"{i + 1} and {j + 1}")
    at = rng.randrange(4)
    return (
        f"Four boxes form a row, numbered from 1 at the left: {', '.join(colours)}. One after the other the "
        f"boxes at these two numbers are exchanged: {'; '.join(steps)}. Which colour is now number {at + 1}?",
        moved[at],
    )


def _liars(rng: random.Random) -> Made:
    names = rng.sample(NAMES, 4)
    honest = [rng.random() < 0.5 for _ in names]
    sayings = [
        f"{names[at]} says that {names[at + 1]} is {'honest' if honest[at] == honest[at + 1] else 'a liar'}."
        for at in range(3)
    ]
    return (
        f"Honest people always say the truth, liars never do. {' '.join(sayings)} {names[0]} is "
        f"{'honest' if honest[0] else 'a liar'}. Is {names[-1]} honest? Reply with yes or no.",
        "yes" if honest[-1] else "no",
    )


WORD_PROBLEMS: tuple[Callable[[random.Random], Made], ...] = (
    _shopping,
    _journey,
    _discount,
    _ages,
    _shares,
    _remainder,
    _geometry,
    _average,
    _committee,
    _percentages,
)
PROGRAMS: tuple[Callable[[random.Random], Made], ...] = (
    _loop,
    _slices,
    _dictionary,
    _recursion,
    _aliases,
    _comprehension,
    _class,
    _bits,
    _exceptions,
)
DEDUCTIONS: tuple[Callable[[random.Random], Made], ...] = (_order, _turns, _boxes, _liars)
