"""Outcomes of the pocket experts without a server: greedy answers, generated in this process.

The weights are those that the engines load; an answer is right if it equals the reference. Questions for
training and for the test are of different splits, with no phrasing, word or number in common.
"""

from pathlib import Path

from cluster.pocket.generate import greedy_answers, load_expert
from cluster.pocket.questions import Question, questions
from cluster.pocket.recipe import RECIPES, conversation
from cluster.pocket.tokenizer import build_tokenizer
from router.data.dataset import Dataset, load_pool, to_dataset
from router.data.outcomes import Row

LOCAL = Path(__file__).resolve().parents[1] / "cluster" / "local"
TRAINED, TESTED = "policy", "heldout"
QUESTIONS = {TRAINED: 2400, TESTED: 1200}
"""Split → questions; an experiment draws half of each, as many as the recipe of the claims' policy."""
SEED = 1


def pocket_outcomes() -> Dataset:
    """Outcomes of every expert on all questions, with tokens, and costs at the pool's prices."""
    drawn = [question for split, n in QUESTIONS.items() for question in questions(split, n=n, seed=SEED)]
    rows = [row for name in RECIPES for row in _answered(name, drawn)]
    return to_dataset(rows, pool=load_pool(LOCAL / "claims-experts.yaml"), where="the pocket experts")


def _answered(expert: str, drawn: list[Question]) -> list[Row]:
    tokenizer = build_tokenizer()
    answers = greedy_answers(load_expert(LOCAL / "experts" / expert), [one.query for one in drawn])
    return [
        {
            "query_id": f"{one.split}-{number:05d}",
            "query": one.query,
            "expert": expert,
            "quality": float(answer == one.reference),
            "prompt_tokens": len(tokenizer.encode(conversation(one.query)).ids),
            "completion_tokens": len(tokenizer.encode(answer).ids) + 1,  # and the end token
            "task": one.task,
            "split": one.split,
        }
        for number, (one, answer) in enumerate(zip(drawn, answers, strict=True))
    ]
