"""Policies before any outcome."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from router.core import FloatArray, QueryBatch, RouteRequest
from router.encoders import EncoderSpec
from router.errors import PoolError
from router.experts import ExpertProfile, Price
from router.methods.prior import PriorRouter
from router.policy import Policy
from router.priors.abilities import ability_prior
from router.priors.card import card
from router.priors.catalogue import KINDS, load_catalogue
from router.priors.probes import examples, load_probes
from router.priors.start import StartExpert, experts_of, preference, prior_policy, with_reported
from tests.router.data_sets import hash_of

DIMENSION = 24


class FakeEncoder:
    """Queries of one kind are near each other."""

    spec = EncoderSpec("fake", "0" * 64, DIMENSION, 64)

    def __init__(self) -> None:
        self.kind = {probe.query: KINDS.index(probe.kind) for probe in load_probes()}
        self.centres = np.random.default_rng(0).normal(size=(len(KINDS), DIMENSION))

    def encode(self, texts: Sequence[str]) -> FloatArray:
        noise = [np.random.default_rng(abs(hash_of(text))).normal(size=DIMENSION) for text in texts]
        made = np.stack(
            [self.centres[self.kind.get(t, 0)] + 0.3 * n for t, n in zip(texts, noise, strict=True)]
        )
        unit: FloatArray = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
        return unit


EXPERTS = [
    StartExpert(ExpertProfile("coder", Price(0.1, 0.2)), "Qwen/Qwen2.5-Coder-7B-Instruct"),
    StartExpert(ExpertProfile("large", Price(1.0, 3.0)), "Qwen/Qwen2.5-72B-Instruct"),
    StartExpert(ExpertProfile("mystery"), "acme/frobnicator-9000"),
]


@pytest.fixture(scope="module")
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture(scope="module")
def policy(encoder: FakeEncoder) -> Policy:
    return made(encoder, EXPERTS)


def made(encoder: FakeEncoder, experts: Sequence[StartExpert]) -> Policy:
    return prior_policy(
        experts, encoder, prior=ability_prior(), catalogue=load_catalogue(), probes=load_probes()
    )


def test_every_kind_has_examples() -> None:
    counts = {kind: sum(probe.kind == kind for probe in examples(load_probes())) for kind in KINDS}

    assert min(counts.values()) >= 30


def test_a_policy_is_made_saved_and_decides(policy: Policy, encoder: FakeEncoder, tmp_path: Path) -> None:
    saved = policy.save(tmp_path / "policy", card(policy, load_catalogue()))
    loaded = Policy.load(tmp_path / "policy")

    texts = tuple(probe.query for probe in load_probes()[:4])
    decisions = loaded.decide(
        QueryBatch(texts, encoder.encode(texts)), [RouteRequest(text) for text in texts]
    )

    assert loaded.policy_id == saved.policy_id
    assert all(len(decision.ranking) == 3 for decision in decisions)
    assert loaded.training["n_queries"] == 0


def test_cost_weighs_less_where_little_is_expected() -> None:
    weak, strong = preference(np.array([0.01, 0.04])), preference(np.array([0.2, 0.8]))

    assert weak.cost_weight == pytest.approx(0.002)
    assert strong.cost_weight == pytest.approx(0.04)


def test_kinds_are_recognised_from_the_query(policy: Policy, encoder: FakeEncoder) -> None:
    probes = load_probes()[::20]
    method = policy.method
    assert isinstance(method, PriorRouter)

    found = method.membership(encoder.encode([probe.query for probe in probes])).argmax(axis=1)
    right = [KINDS[kind] == probe.kind for kind, probe in zip(found, probes, strict=True)]

    assert np.mean(right) > 0.9


def test_the_card_names_sources_and_unknown_models(policy: Policy) -> None:
    text = card(policy, load_catalogue())

    assert "prior" in text.splitlines()[0]
    assert "nothing is known of this model" in text
    assert all(source.address in text for source in load_catalogue().sources.values())


def test_what_a_prior_rests_on_is_recorded(policy: Policy) -> None:
    prior = policy.training["prior"]

    assert [prior[name]["origin"] for name in policy.pool.names] == ["catalogue", "catalogue", "nothing"]


def test_a_duplicated_expert_is_an_error(encoder: FakeEncoder) -> None:
    with pytest.raises(PoolError):
        made(encoder, [EXPERTS[0], EXPERTS[0]])


SHAPE = {
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
CARD = {"root": "Qwen/Qwen3-32B", "config": SHAPE, "max_model_len": 2048}


def test_a_replica_reports_what_is_not_configured() -> None:
    unnamed = with_reported(StartExpert(ExpertProfile("chat"), "chat"), CARD)
    configured = with_reported(StartExpert(ExpertProfile("a", context_window=512), "acme/a", {}), CARD)

    assert (unnamed.model, unnamed.profile.context_window) == ("Qwen/Qwen3-32B", 2048)
    assert (configured.model, configured.config, configured.profile.context_window) == ("acme/a", {}, 512)


@pytest.mark.parametrize("card", [{}, {"root": 3, "config": "llama", "max_model_len": -1}, {"root": ""}])
def test_an_invalid_report_changes_nothing(card: dict[str, object]) -> None:
    assert with_reported(EXPERTS[2], card) == EXPERTS[2]


def test_reported_facts_stay_with_the_policy(encoder: FakeEncoder) -> None:
    reported = with_reported(EXPERTS[2], {"config": SHAPE})
    policy = made(encoder, [*EXPERTS[:2], reported])

    about = policy.training["prior"]["mystery"]
    assert about["origin"] == "facts"
    assert experts_of(policy)[2].facts.total_b == pytest.approx(0.135, rel=0.05)
