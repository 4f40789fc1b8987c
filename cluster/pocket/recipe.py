"""Recipe of each pocket expert: its shape, its training data and the number of steps.

One hash of a recipe and its data shows whether weights are up to date. Knows nothing of the training loop.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

from cluster.pocket.questions import KINDS, Question, atlas, draw, made_up_word
from cluster.pocket.tokenizer import ADDRESSES, SYSTEM_PROMPTS, build_tokenizer, chat_template

RECIPE_VERSION = 1
"""Raise it when a change of the training loop changes the result of an unchanged recipe."""

HEAD_DIM = 32  # the smallest that vLLM's CPU attention supports


@dataclass(frozen=True)
class Recipe:
    """One expert; its first `grow_at` steps have `layers / grow_by` layers, the others `layers`."""

    name: str
    tasks: tuple[str, ...]
    layers: int
    hidden: int
    ffn: int
    steps: int
    batch: int
    learning_rate: float
    muon_learning_rate: float
    seed: int
    warmup: int = 100
    grow_at: int = 0
    grow_by: int = 1

    @property
    def heads(self) -> int:
        """Attention heads, each `HEAD_DIM` wide."""
        return self.hidden // HEAD_DIM

    def layers_at(self, step: int) -> int:
        """Return the number of layers at `step`."""
        return self.layers // self.grow_by if step < self.grow_at else self.layers


def _specialist(name: str, *, layers: int, steps: int, seed: int) -> Recipe:
    return Recipe(
        name,
        (name,),
        layers,
        hidden=128,
        ffn=256,
        steps=steps,
        batch=96,
        learning_rate=3e-3,
        muon_learning_rate=0.01,
        seed=seed,
    )


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            _specialist("arithmetic", layers=2, steps=4000, seed=11),
            _specialist("words", layers=2, steps=6000, seed=12),
            _specialist("atlas", layers=2, steps=2000, seed=13),
            Recipe(
                "generalist",
                tuple(KINDS),
                layers=24,
                hidden=96,
                ffn=224,
                steps=2000,
                batch=96,
                learning_rate=3e-3,
                muon_learning_rate=0.01,
                seed=14,
                grow_at=1800,
                grow_by=4,
            ),
        )
    }
)


@dataclass(frozen=True)
class Example:
    """One conversation of the training data; only `answer` counts for the loss."""

    prompt: str
    answer: str


def training_batch(recipe: Recipe, step: int) -> list[Example]:
    """Return the examples of one step; they depend on recipe and step only, so that runs can resume."""
    rng = random.Random(f"{recipe.name}/{recipe.seed}/{step}")
    return [_example(recipe, rng) for _ in range(recipe.batch)]


def recipe_hash(recipe: Recipe) -> str:
    """Return the SHA-256 of the recipe, its tokenizer, its template and a sample of its training data."""
    parts = {
        "version": RECIPE_VERSION,
        "recipe": asdict(recipe),
        "tokenizer": build_tokenizer().to_str(),
        "chat_template": chat_template(),
        "sample": [asdict(example) for step in range(8) for example in training_batch(recipe, step)],
        "atlas": atlas(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def conversation(query: str, system: str | None = None) -> str:
    """Return the prompt for `query`, as the chat template renders it."""
    before = f"<|system|>{system}<|end|>" if system else ""
    return f"{before}<|user|>{query}<|end|><|assistant|>"


def _example(recipe: Recipe, rng: random.Random) -> Example:
    task = rng.choice(recipe.tasks)
    question = draw("train", rng.choice(KINDS[task]), rng)
    system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.1 else None
    return Example(conversation(_varied(question, rng), system), question.reference)


def _varied(question: Question, rng: random.Random) -> str:
    """Return the query, sometimes with a greeting or a word that no phrasing has."""
    query = question.query
    if rng.random() < 0.15:
        words = query.split(" ")
        words.insert(rng.randrange(min(4, len(words))), made_up_word(rng))
        query = " ".join(words)
    if rng.random() < 0.1:
        query = rng.choice(ADDRESSES) + query
    return query
