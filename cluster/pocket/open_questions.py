"""Open questions: what is neither arithmetic nor words nor the atlas, for the policy and its test.

The policy learns from its split that they belong to the chat expert. The kinds of the held-out split are
others: code, long texts, languages that the policy never met, and small talk in other words. References
are short and one of many good answers. Knows nothing of models or policies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache

from cluster.pocket.questions import MATERIAL, Question

TASK = "open"
LONG_TEXTS = "long texts"
SPLITS = ("policy", "heldout")


@cache
def open_questions(split: str) -> tuple[Question, ...]:
    """Return all questions of a split, in the order of the file.

    Raises:
        KeyError: there is no such split.
    """
    material = json.loads((MATERIAL / "open_questions.json").read_text(encoding="utf-8"))
    kinds: Mapping[str, list[tuple[str, str]]] = material[split]
    if split == "heldout":
        kinds = {**kinds, LONG_TEXTS: _about_texts(material[LONG_TEXTS], material["instructions"])}
    return tuple(
        Question(TASK, kind, split, query, reference)
        for kind, pairs in kinds.items()
        for query, reference in pairs
    )


def _about_texts(texts: list[tuple[str, str]], instructions: list[str]) -> list[tuple[str, str]]:
    return [(instruction.format(text), summary) for text, summary in texts for instruction in instructions]
