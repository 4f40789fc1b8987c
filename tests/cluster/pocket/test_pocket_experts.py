"""The pocket experts of the repository: complete, up to date, with measured accuracy."""

import json
import re
from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.local.run import ROOT
from cluster.pocket import accuracy_table
from cluster.pocket.expert_folder import (
    EXPERTS,
    ExpertFolderError,
    check_total_size,
    is_up_to_date,
    verified_stamp,
)
from cluster.pocket.questions import KINDS, SPLITS, QuestionError, phrasings, questions, small_sums
from cluster.pocket.recipe import RECIPES, conversation, training_batch
from cluster.pocket.tokenizer import build_tokenizer, chat_template
from cluster.pocket.train_policy import RECIPES as POLICIES
from cluster.pocket.train_policy import up_to_date
from router.policy import Policy

SPECIALISTS = tuple(KINDS)


@pytest.mark.parametrize("name", RECIPES)
def test_the_expert_is_what_its_recipe_makes(name: str) -> None:
    assert is_up_to_date(RECIPES[name], EXPERTS / name)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    for file in (EXPERTS / "words").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)

    with pytest.raises(ExpertFolderError, match=r"model\.safetensors has sha256"):
        verified_stamp(tmp_path)
    assert not is_up_to_date(RECIPES["words"], tmp_path)


@pytest.mark.parametrize("name", RECIPES)
def test_pocket_experts_answer_greedily_by_default(name: str) -> None:
    """VLLM takes the temperature from this file and ignores `do_sample`."""
    defaults = json.loads((EXPERTS / name / "generation_config.json").read_text(encoding="utf-8"))

    assert defaults["temperature"] == 0.0


def test_all_weights_are_small_enough_for_the_repository() -> None:
    assert 0 < check_total_size(EXPERTS) <= 8_000_000


def test_specialists_are_good_at_their_own_task_only() -> None:
    accuracy, parameters = accuracy_table.stamped()

    for name in SPECIALISTS:
        assert accuracy[name][name] >= 0.9
        assert all(accuracy[name][other] <= 0.05 for other in SPECIALISTS if other != name)
        assert parameters["generalist"] >= 4 * parameters[name]
    assert all(accuracy["generalist"][task] >= 0.4 for task in SPECIALISTS)


def test_the_documented_table_is_the_stamps() -> None:
    page = (ROOT / "docs" / "pocket-experts.md").read_text(encoding="utf-8")

    assert accuracy_table.table(*accuracy_table.stamped()) in page


def test_the_splits_share_no_question_and_no_phrasing() -> None:
    drawn = {split: {q.query for q in questions(split, n=600, seed=5)} for split in SPLITS}
    for one, other in (("train", "policy"), ("train", "heldout"), ("policy", "heldout")):
        assert not drawn[one] & drawn[other]
        for ways in phrasings().values():
            assert not set(ways[one]) & set(ways[other])
            assert len(ways[one]) >= 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"split": "all", "n": 1}, "split is 'all'"),
        ({"split": "train", "n": 0}, "n is 0"),
        ({"split": "train", "n": 1, "tasks": ["chess"]}, "chess"),
        ({"split": "heldout", "n": 100_000, "tasks": ["atlas"]}, "draw fewer"),
    ],
)
def test_questions_that_cannot_be_drawn_are_an_error(options: dict[str, object], expected: str) -> None:
    with pytest.raises(QuestionError, match=re.escape(expected)):
        questions(**{"seed": 0, **options})  # type: ignore[arg-type]


def test_small_sums_are_of_one_split_and_have_one_digit() -> None:
    drawn = {split: small_sums(split, n=60, seed=1) for split in SPLITS}

    assert drawn["policy"] == small_sums("policy", n=60, seed=1) != small_sums("policy", n=60, seed=2)
    assert len({q.query for asked in drawn.values() for q in asked}) == 180
    assert all(-9 <= int(q.reference) <= 18 for asked in drawn.values() for q in asked)
    with pytest.raises(QuestionError, match="has 100 small sums, found n = 101"):
        small_sums("policy", n=101, seed=1)


TOKENIZER = build_tokenizer()


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_every_text_comes_back_from_the_tokenizer(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text


def test_the_template_is_that_of_training_and_rejects_roles() -> None:
    def reject(message: str) -> None:
        raise ValueError(message)

    template = jinja2.Environment(autoescape=False).from_string(chat_template())  # noqa: S701 - no HTML
    prompt = template.render(
        messages=[{"role": "user", "content": "hello"}], add_generation_prompt=True, raise_exception=reject
    )

    assert prompt == conversation("hello")
    with pytest.raises(ValueError, match="unknown role 'oracle'"):
        template.render(messages=[{"role": "oracle", "content": "hello"}], raise_exception=reject)


def test_a_step_always_draws_the_same_examples() -> None:
    recipe = RECIPES["generalist"]

    assert training_batch(recipe, 7) == training_batch(recipe, 7) != training_batch(recipe, 8)


def test_answers_are_short() -> None:
    longest = max(
        len(TOKENIZER.encode(q.reference).ids) for split in SPLITS for q in questions(split, n=600, seed=3)
    )

    assert longest < 16  # with the end token, at most 16


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_was_made_from_the_present_experts(name: str) -> None:
    recipe = POLICIES[name]
    outcomes = json.loads(recipe.stamp.read_text(encoding="utf-8"))

    assert up_to_date(recipe)
    assert tuple(Policy.load(recipe.policy).pool.names) == recipe.experts
    assert outcomes["recipe"]["train"]["split"] == "policy"
