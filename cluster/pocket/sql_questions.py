"""Questions with an answer in SQL: training data of an adapter, of a policy over it, and a held-out test set.

The three splits share no phrasing, and no table is in the training data and in another split: an adapter has
to copy names that it never met. Each reference is one of several right statements, in the usual style.
Knows nothing of models.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

from cluster.pocket.questions import Question, QuestionError

TASK = "sql"
MOST_REPEATED = 500
"""So many draws in a row without a new question show that there is none."""
SPLITS = ("train", "policy", "heldout")
TABLES: Mapping[str, Mapping[str, Mapping[str, tuple[str, tuple[str, ...]]]]] = {
    "train": {
        "orders": {"price": ("status", ("paid", "open", "cancelled"))},
        "customers": {"age": ("country", ("Norway", "Spain", "Japan"))},
        "products": {"weight": ("colour", ("red", "green", "black"))},
        "flights": {"distance": ("airline", ("Aurora", "Delta", "Iris"))},
        "employees": {"salary": ("department", ("sales", "research", "finance"))},
        "films": {"length": ("genre", ("drama", "comedy", "horror"))},
        "schools": {"capacity": ("district", ("north", "south", "west"))},
        "payments": {"amount": ("currency", ("euro", "dollar", "yen"))},
        "machines": {"power": ("maker", ("Bosch", "Makita", "Stihl"))},
        "songs": {"duration": ("artist", ("Abba", "Bjork", "Cher"))},
    },
    "policy": {
        "books": {"pages": ("language", ("French", "German", "Hindi"))},
        "hotels": {"stars": ("city", ("Rome", "Oslo", "Lima"))},
        "invoices": {"total": ("state", ("sent", "late", "settled"))},
        "players": {"score": ("team", ("Lions", "Bears", "Hawks"))},
    },
    "heldout": {
        "cars": {"mileage": ("brand", ("Volvo", "Fiat", "Honda"))},
        "houses": {"area": ("street", ("Elm", "Oak", "Pine"))},
        "patients": {"height": ("ward", ("surgery", "eyes", "heart"))},
        "recipes": {"calories": ("cuisine", ("Thai", "Greek", "Indian"))},
    },
}
"""Split → table → its column of numbers → its column of words, with some of them."""
STATEMENTS: Mapping[str, str] = {
    "count": "SELECT COUNT(*) FROM {table} WHERE {column} = '{value}'",
    "column": "SELECT {column} FROM {table}",
    "above": "SELECT * FROM {table} WHERE {number} > {bound}",
    "top": "SELECT * FROM {table} ORDER BY {number} DESC LIMIT {few}",
    "average": "SELECT AVG({number}) FROM {table}",
}
PHRASINGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "count": {
        "train": (
            "Write SQL: how many {table} have the {column} {value}?",
            "SQL to count {table} whose {column} is {value}",
        ),
        "policy": ("Count the {table} with {column} {value} in SQL.",),
        "heldout": ("Give me a SQL query for the number of {table} where {column} is {value}.",),
    },
    "column": {
        "train": (
            "Write SQL: the {column} of all {table}",
            "SQL to list the {column} of every one of the {table}",
        ),
        "policy": ("Show the {column} of each of the {table} in SQL.",),
        "heldout": ("Give me a SQL query for the {column} of all {table}.",),
    },
    "above": {
        "train": (
            "Write SQL: all {table} with {number} above {bound}",
            "SQL to find {table} whose {number} is over {bound}",
        ),
        "policy": ("Show the {table} with {number} greater than {bound} in SQL.",),
        "heldout": ("Give me a SQL query for {table} where {number} is more than {bound}.",),
    },
    "top": {
        "train": (
            "Write SQL: the {few} {table} with the highest {number}",
            "SQL to find the top {few} {table} by {number}",
        ),
        "policy": ("Show the {few} {table} with the largest {number} in SQL.",),
        "heldout": ("Give me a SQL query for the {few} {table} of greatest {number}.",),
    },
    "average": {
        "train": (
            "Write SQL: the average {number} of the {table}",
            "SQL to compute the mean {number} of all {table}",
        ),
        "policy": ("Compute the average {number} over {table} in SQL.",),
        "heldout": ("Give me a SQL query for the mean {number} of the {table}.",),
    },
}


def sql_questions(split: str, *, n: int, seed: int) -> list[Question]:
    """Draw `n` different questions, kinds in turn.

    Raises:
        QuestionError: unknown split, or the split holds fewer.
    """
    if split not in SPLITS:
        raise QuestionError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    rng = random.Random(f"{TASK}/{split}/{seed}")
    kinds = itertools.cycle(STATEMENTS)
    drawn: dict[str, Question] = {}
    repeated = 0
    while len(drawn) < n:
        question = _draw(split, next(kinds), rng)
        repeated = repeated + 1 if question.query in drawn else 0
        if repeated == MOST_REPEATED:
            raise QuestionError(f"split {split} holds fewer than {n} questions")
        drawn.setdefault(question.query, question)
    return list(drawn.values())


def _draw(split: str, kind: str, rng: random.Random) -> Question:
    table, columns = rng.choice(sorted(TABLES[split].items()))
    ((number, (column, values)),) = columns.items()
    slots = {
        "table": table,
        "number": number,
        "column": column,
        "value": rng.choice(values),
        "bound": rng.randrange(2, 1000),
        "few": rng.randrange(2, 30),
    }
    query = rng.choice(PHRASINGS[kind][split]).format(**slots)
    return Question(TASK, kind, split, query, STATEMENTS[kind].format(**slots))
