"""Adapters of the chat model: the questions of one, its training, and folders that an engine takes."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from cluster.pocket.expert_folder import EXPERTS
from cluster.pocket.lora import WEIGHTS, random_adapter
from cluster.pocket.questions import QuestionError
from cluster.pocket.sql_questions import PHRASINGS, SPLITS, STATEMENTS, TABLES, sql_questions
from cluster.pocket.train_adapter import Recipe, train
from deployments.expert.adapter_folder import inspect, read_base

MODEL = EXPERTS / "words"
"""A pocket expert: of the chat model's kind, and small."""


def test_the_splits_of_sql_share_neither_table_nor_phrasing() -> None:
    tables = [set(TABLES[split]) for split in SPLITS]
    phrasings = [{text for kind in STATEMENTS for text in PHRASINGS[kind][split]} for split in SPLITS]

    assert all(len(set.union(*of)) == sum(map(len, of)) for of in (tables, phrasings))


def test_questions_in_sql_differ_and_repeat_with_their_seed() -> None:
    drawn = sql_questions("heldout", n=50, seed=3)

    assert drawn == sql_questions("heldout", n=50, seed=3) != sql_questions("heldout", n=50, seed=4)
    assert len({question.query for question in drawn}) == 50


def test_a_split_that_holds_too_few_questions_is_an_error() -> None:
    with pytest.raises(QuestionError, match="fewer than 5000"):
        sql_questions("heldout", n=5_000, seed=0)


def test_a_random_adapter_is_one_that_its_engine_takes(tmp_path: Path) -> None:
    folder = random_adapter(tmp_path / "a", MODEL, seed=0)

    assert inspect(folder, read_base(str(MODEL)), max_rank=8).rank == 8


def test_a_trained_adapter_has_weights_for_the_last_layers_only(tmp_path: Path) -> None:
    recipe = Recipe(examples=4, batch=2, epochs=1, layers=1)
    train(tmp_path / "a", recipe, MODEL)
    weights = load_file(tmp_path / "a" / WEIGHTS)
    layers = {name.split(".")[4] for name in weights}
    inspect(tmp_path / "a", read_base(str(MODEL)), max_rank=8)

    assert len(layers) == 1
    assert all(np.abs(matrix).max() > 0 for matrix in weights.values())
