"""Questions keep their expert whatever a harness or a conversation puts around them."""

from pathlib import Path

import pytest

from cluster.pocket.questions import questions
from experiments.wrappings import WRAPPINGS, Kept, kept, query_of
from router.encoders import load_encoder
from router.policy import Policy

POLICY = Path(__file__).resolve().parents[2] / "cluster" / "local" / "policy"
TEXTS = [question.query for question in questions("heldout", n=100, seed=1)]


@pytest.fixture(scope="module")
def shares() -> dict[str, Kept]:
    policy = Policy.load(POLICY)
    return kept(policy, load_encoder(policy.encoder), TEXTS)


@pytest.mark.parametrize("name", WRAPPINGS)
def test_nine_of_ten_keep_their_expert_under(name: str, shares: dict[str, Kept]) -> None:
    assert shares[name].expert >= 0.9


@pytest.mark.parametrize("name", WRAPPINGS)
def test_only_the_question_is_read_under(name: str) -> None:
    assert [query_of(WRAPPINGS[name](text)) for text in TEXTS] == TEXTS
