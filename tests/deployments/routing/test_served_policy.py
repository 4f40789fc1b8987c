"""The served policy without a deployment: decisions, embeddings that are kept, the ingress' view."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.config import RouterArgs, RouterConfig
from deployments.routing.served_policy import ServedPolicy, load
from router.core import FloatArray, RouteRequest
from router.encoders import DEFAULT, Encoder, load_encoder
from router.errors import PoolError
from router.training.train import train
from tests.router.data_sets import dataset

ARGS = RouterArgs(device="cpu")
SUM, SPELL = "What is 12 plus 30?", "Spell the word cab backwards"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained policy."""
    encoder, data = load_encoder(DEFAULT, device="cpu", threads=1), dataset(120)
    folder: Path = tmp_path_factory.mktemp("served") / "policy"
    trained = train(data, encoder.encode(list(data.texts)), encoder.spec, method="knn")
    trained.save(folder, "# Card\n")
    return folder


class Counting:
    """An encoder that remembers its texts."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.spec = encoder, encoder.spec
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> FloatArray:
        self.texts += texts
        return self._encoder.encode(texts)


def test_each_distinct_query_is_encoded_once_and_decided_in_order(folder: Path) -> None:
    loaded = load(RouterConfig(policy=str(folder)), ARGS, None)
    encoder = Counting(loaded.encoder)
    served = ServedPolicy(loaded.policy, encoder, str(folder))
    queries = [SUM, SPELL, SUM]
    decisions = [served.decide([RouteRequest(query) for query in queries]) for _ in range(2)]

    assert [[decision.expert for decision in batch] for batch in decisions] == [["sums", "words", "sums"]] * 2
    assert encoder.texts == [SUM, SPELL]


def test_a_share_of_the_requests_is_drawn_and_repeats_from_its_seed(folder: Path) -> None:
    config = RouterConfig.model_validate(
        {"policy": str(folder), "explore": {"share": 0.5, "quality_floor": 0.0}}
    )
    served = load(config, ARGS, None)
    requests = [RouteRequest(SUM, unit=f"request {number}") for number in range(200)]

    decisions = served.decide(requests)

    draws = [decision.draw for decision in decisions if decision.draw is not None]
    assert len(draws) == 200
    assert 70 <= sum(draw.explored for draw in draws) <= 130
    assert all(sum(draw.propensities.values()) == pytest.approx(1.0) for draw in draws)
    assert {decision.ranking[0] for decision in decisions} == {"sums", "words", "large"}
    assert [one.draw for one in served.decide(requests)] == draws


def test_without_a_unit_nothing_is_drawn_and_without_a_share_nothing_changes(folder: Path) -> None:
    config = RouterConfig.model_validate({"policy": str(folder), "explore": {"share": 1.0}})
    plain, without = load(RouterConfig(policy=str(folder)), ARGS, None), RouteRequest(SUM)

    (undrawn,) = load(config, ARGS, None).decide([without])
    (certain,) = plain.decide([RouteRequest(SUM, unit="request 1")])

    assert undrawn.draw is None
    assert certain.draw is not None
    assert certain.draw.propensities == {certain.ranking[0]: 1.0}
    assert undrawn.ranking == certain.ranking == plain.decide([without])[0].ranking


def test_static_embeddings_are_not_kept(folder: Path) -> None:
    loaded = load(RouterConfig(policy=str(folder)), ARGS, None)
    encoder = Counting(loaded.encoder)
    encoder.spec = replace(encoder.spec, kind="static")
    served = ServedPolicy(loaded.policy, encoder, str(folder))
    for _ in range(2):
        served.decide([RouteRequest(SUM)])

    assert encoder.texts == [SUM, SUM]
    assert len(served.embeddings) == 0


def test_a_swap_keeps_encoder_and_embeddings(folder: Path) -> None:
    config = RouterConfig(policy=str(folder))
    first = load(config, ARGS, None)
    first.decide([RouteRequest(SUM)])
    second = load(config, ARGS, first)

    assert second.encoder is first.encoder
    assert second.embeddings is first.embeddings
    assert second.embeddings.get(SUM) is not None


def test_the_view_has_the_policys_facts(folder: Path) -> None:
    prices = {"sums": {"input": 1.0, "output": 2.0}}
    served = load(RouterConfig.model_validate({"policy": str(folder), "prices": prices}), ARGS, None)
    view = served.view()

    assert (view.policy_id, view.experts) == (served.policy.policy_id, served.policy.pool.names)
    assert view.prices["sums"].output == 2.0
    assert (view.folder, view.best_single) == (str(folder), served.policy.training.get("best_single"))


def test_experts_that_the_policy_does_not_know_are_an_error(folder: Path) -> None:
    with pytest.raises(PoolError, match="does not cover the experts stranger"):
        load(RouterConfig(policy=str(folder), experts=["sums", "stranger"]), ARGS, None)


def test_a_served_policy_needs_no_ray() -> None:
    code = "import sys, deployments.routing.served_policy; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
