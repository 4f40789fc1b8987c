"""The policies of the repository: their graphs, their evaluation, and where they send queries."""

import json
from typing import Any

import numpy as np
import pytest
import yaml

from cluster.pocket.open_questions import SPLITS, open_questions
from cluster.pocket.questions import Question, questions
from cluster.pocket.train_policy import CLAIMS, DEFAULT, Recipe
from router.core import Decision, Preferences, QueryBatch, RouteRequest
from router.encoders import load_encoder
from router.experts import Price
from router.policy import Policy


def application(recipe: Recipe) -> dict[str, Any]:
    """The first application of a graph: ingress and router."""
    data: dict[str, Any] = yaml.safe_load(recipe.config.read_text(encoding="utf-8"))
    return dict(data["applications"][0])


def decisions(recipe: Recipe, asked: list[Question]) -> list[Decision]:
    """Decisions as the graph's router makes them, with its prices and its default preference."""
    settings = application(recipe)["deployments"][1]["user_config"]
    policy = Policy.load(recipe.policy).with_overrides(
        prices={name: Price(**price) for name, price in settings["prices"].items()},
        preferences=Preferences(**settings["preferences"]),
    )
    texts = tuple(question.query for question in asked)
    embeddings = load_encoder(policy.encoder).encode(texts)
    return policy.decide(QueryBatch(texts, embeddings), [RouteRequest(text) for text in texts])


def test_open_queries_of_new_kinds_go_to_chat() -> None:
    asked = list(open_questions("heldout"))
    chosen = [decision.ranking[0] for decision in decisions(DEFAULT, asked)]
    elsewhere = [f"{e}: {q.query[:60]}" for e, q in zip(chosen, asked, strict=True) if e != "chat"]

    assert len(asked) == 200
    assert len(elsewhere) <= 0.03 * len(asked), elsewhere


@pytest.mark.parametrize("recipe", [DEFAULT, CLAIMS], ids=["default", "claims"])
def test_held_out_queries_go_to_their_specialist(recipe: Recipe) -> None:
    asked = questions("heldout", n=300, seed=17)
    chosen = [decision.ranking[0] for decision in decisions(recipe, asked)]
    right = [e in {q.task, "generalist"} for e, q in zip(chosen, asked, strict=True)]

    assert np.mean(right) >= 0.97


def test_sums_that_a_newcomer_types_first_go_to_arithmetic() -> None:
    ways = (
        "What is {} + {}?",
        "What's {} plus {}?",
        "{} + {}",
        "{}+{} = ?",
        "what is {} - {}",
        "Add {} and {}.",
    )
    pairs = [(a, b) for a in range(10) for b in range(10)]
    asked = [Question("arithmetic", way, "train", way.format(*pair), "") for way in ways for pair in pairs]
    chosen = [decision.ranking[0] for decision in decisions(DEFAULT, asked)]
    elsewhere = [f"{e}: {q.query}" for e, q in zip(chosen, asked, strict=True) if e != "arithmetic"]

    assert len(elsewhere) <= 0.03 * len(asked), elsewhere


def test_open_queries_of_the_two_splits_differ() -> None:
    queries = [{question.query.casefold() for question in open_questions(split)} for split in SPLITS]

    assert not queries[0] & queries[1]
    assert [len(some) for some in queries] == [len(open_questions(split)) for split in SPLITS]
    assert all(question.reference for split in SPLITS for question in open_questions(split))


def test_the_graph_of_the_claims_differs_in_its_fourth_expert_only() -> None:
    default, claims = (
        yaml.safe_load(recipe.config.read_text(encoding="utf-8")) for recipe in (DEFAULT, CLAIMS)
    )
    for data, recipe in ((default, DEFAULT), (claims, CLAIMS)):
        name = recipe.experts[-1]
        ingress, router = (d["user_config"] for d in data["applications"][0]["deployments"])
        assert ingress["experts"].pop(name)["app"] == f"expert-{name}"
        assert router["prices"].pop(name)
        assert router.pop("policy") == str(recipe.policy.relative_to(recipe.policy.parents[2]))
        assert router.pop("preferences")
        assert data["applications"].pop()["args"]["name"] == name

    assert claims == default


def test_the_default_policy_comes_with_its_evaluation() -> None:
    report = json.loads((DEFAULT.report / "report.json").read_text(encoding="utf-8"))

    assert report["policy_id"] == Policy.load(DEFAULT.policy).policy_id
    assert report["curve"]
    assert report["calibration"]
