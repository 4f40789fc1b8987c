"""Answers to sums, right or wrong by a draw, with log-probabilities that show it more or less.

Pure: the same expert gives the same answer to the same query, so that what a plan does with it is known
before it is carried out.
"""

import random
import re

from deployments.simulated.bodies import Completion, completion_of

_SUM = re.compile(r"(\d{1,9})\s*(?:\+|plus)\s*(\d{1,9})")
MOST_OFF = 20
"""A wrong result differs from the right one by at most so much: two experts seldom err alike."""
LEAST_TOKENS = 5
DOUBT = {True: (0.02, 0.5), False: (0.3, 1.5)}
"""Whether an answer is right → the range of the mean of its negative log-probabilities."""


def result_of(query: str) -> int | None:
    """The result of the last sum in a query; `None` where it has none."""
    found = _SUM.findall(query)
    return int(found[-1][0]) + int(found[-1][1]) if found else None


def answer(expert: str, query: str, right: float, sample: int = 0, *, tokens: int = 0) -> Completion:
    """Return an expert's answer to the sum in a query; a query without one gets 0.

    Args:
        expert: its name.
        query: the text with the sum.
        right: the fraction of all queries that it answers correctly.
        sample: another draw for the same query.
        tokens: its length; at least what naming itself and the result take.
    """
    drawn = random.Random(f"{expert}\n{query}\n{sample}")
    is_right = drawn.random() < right
    result = (result_of(query) or 0) + (0 if is_right else drawn.randint(1, MOST_OFF))
    doubt = drawn.uniform(*DOUBT[is_right])
    before = "".join(f"w{number} " for number in range(1, tokens - LEAST_TOKENS + 1))
    words = completion_of(expert, f"{before}The answer is {result}", 0).words
    return Completion(words, tuple(round(-doubt * drawn.uniform(0.5, 1.5), 4) for _ in words))
