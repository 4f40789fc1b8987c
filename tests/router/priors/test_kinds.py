"""Kinds of task are recognised in queries that the shipped examples do not hold."""

import numpy as np
import pytest

from router.core import FloatArray
from router.encoders import load_encoder
from router.methods.prior import PriorRouter
from router.priors.catalogue import KINDS
from router.priors.probes import Probe, examples, load_probes

LEAST_RIGHT, LEAST_RIGHT_ELSEWHERE = 0.75, 0.5
"""Shares; by chance a sixth is right."""
NEW = [
    ("mathematics", "A recipe for 4 people needs 300 g of rice. How much rice do 7 people need?"),
    ("mathematics", "What is the derivative of 3x^3 - 5x at x = 2?"),
    ("code", "My Python script raises KeyError when the dictionary lacks a key. How do I fix it?"),
    ("code", "def f(xs): return [x for x in xs if x > 2]\n\nWhat does f([1, 2, 3, 4]) return?"),
    ("knowledge", "Which enzyme in saliva begins the digestion of starch?"),
    ("knowledge", "Who was the second president of the United States?"),
    ("logic", "Lena sits left of Omar and Omar sits left of Pia. Who sits in the middle?"),
    ("logic", "All violins are instruments. Some instruments are old. Must some violins be old?"),
    ("instruction", "Write exactly three sentences about spring and end each with an exclamation mark."),
    ("instruction", "Reply with a JSON object with the keys title and year, and nothing else."),
    ("language", "Translate into Spanish: Where is the nearest station?"),
    ("language", "Rearrange these letters into an English word: n e g d a r."),
]
"""Written for this test: queries as people write them."""


@pytest.fixture(scope="module")
def embeddings() -> dict[str, FloatArray]:
    texts = [*(probe.query for probe in load_probes()), *(query for _, query in NEW)]
    return dict(zip(texts, load_encoder("static").encode(texts), strict=True))


def recognised(shown: list[Probe], queries: list[str], embeddings: dict[str, FloatArray]) -> list[str]:
    labels = np.array([KINDS.index(probe.kind) for probe in shown])
    method = PriorRouter(kinds=KINDS).expect(
        np.stack([embeddings[probe.query] for probe in shown]), labels, np.zeros((len(KINDS), 2))
    )
    members = method.membership(np.stack([embeddings[query] for query in queries]))
    return [KINDS[kind] for kind in members.argmax(axis=1)]


def test_new_queries_have_their_kind(embeddings: dict[str, FloatArray]) -> None:
    found = recognised(examples(load_probes()), [query for _, query in NEW], embeddings)

    right = [kind == wanted for kind, (wanted, _) in zip(found, NEW, strict=True)]

    assert np.mean(right) >= LEAST_RIGHT, list(zip(found, NEW, strict=True))


def test_tasks_without_an_example_mostly_have_their_kind(embeddings: dict[str, FloatArray]) -> None:
    tasks = sorted({(probe.kind, probe.task) for probe in load_probes()})
    right = []
    for fold in range(4):
        away = set(tasks[fold::4])
        inside = [probe for probe in load_probes() if (probe.kind, probe.task) not in away]
        outside = [probe for probe in load_probes() if (probe.kind, probe.task) in away]
        found = recognised(examples(inside), [probe.query for probe in outside], embeddings)
        right += [kind == probe.kind for kind, probe in zip(found, outside, strict=True)]

    assert np.mean(right) >= LEAST_RIGHT_ELSEWHERE
