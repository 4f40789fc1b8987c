"""The router deployment's class, in process: what it serves, what it rejects, how it decides a batch."""

import asyncio
import threading
from functools import cache
from pathlib import Path

import pytest

from deployments.config import RouterArgs
from deployments.last_good import LastGood
from deployments.routing.deployment import BATCH_TIMEOUT_S, Router
from deployments.routing.loop_budget import LoopBudget
from router.core import Decision, RouteRequest
from router.encoders import DEFAULT, load_encoder
from router.encoders.source import find
from router.policy import Policy
from router.training.train import train
from tests.deployments.fakes import Clock
from tests.router.data_sets import dataset
from tests.router.methods import users_method

SUM, SPELL = "What is 12 plus 30?", "Spell the word cab backwards"


@pytest.fixture
async def router() -> Router:
    return Router(RouterArgs(device="cpu", batch_wait_ms=0))


@cache
def fitted(method: str, n: int) -> Policy:
    """A policy of this method, trained once for all tests."""
    data, encoder = dataset(n), load_encoder(DEFAULT, device="cpu", threads=1)
    return train(data, encoder.encode(list(data.texts)), encoder.spec, method=method)


def policy(folder: Path, method: str = "knn", n: int = 120) -> Policy:
    """A trained policy, saved in `folder`."""
    fitted(method, n).save(folder, "# Card\n")
    return Policy.load(folder)


async def decision(router: Router, query: str, **options: object) -> Decision:
    (response,) = await router.decide([RouteRequest(query, **options)])  # type: ignore[arg-type]
    assert response.decision is not None, response.no_policy
    return response.decision


async def test_without_a_policy_the_response_has_the_reason(router: Router) -> None:
    (response,) = await router.decide([RouteRequest(SUM)])

    assert response.decision is None
    assert "names none" in response.no_policy
    assert router.describe().policy is None


async def test_a_batch_has_a_decision_for_each_even_without_an_expert(router: Router, tmp_path: Path) -> None:
    saved = policy(tmp_path / "policy")
    await router.reconfigure({"policy": str(tmp_path / "policy")})
    none_eligible = RouteRequest(SUM, excluded=dict.fromkeys(saved.pool.names, "not today"))

    first, second, (third,) = await asyncio.gather(
        decision(router, SUM), decision(router, SPELL), router.decide([none_eligible])
    )

    assert (first.expert, second.expert) == ("sums", "words")
    assert first.policy_id == saved.policy_id
    assert third.decision is not None
    assert third.decision.ranking == ()
    assert third.decision.exclusions == none_eligible.excluded


async def test_a_call_of_many_has_their_decisions_in_order(
    router: Router, saved: Policy, tmp_path: Path
) -> None:
    await router.reconfigure({"policy": str(tmp_path / "policy")})
    queries = [SUM, SPELL] * 20

    responses = await router.decide([RouteRequest(query) for query in queries])

    experts = [response.decision.expert for response in responses if response.decision is not None]
    assert experts == ["sums", "words"] * 20


async def test_a_bad_folder_is_rejected_and_the_old_policy_stays(router: Router, tmp_path: Path) -> None:
    saved = policy(tmp_path / "policy")
    await router.reconfigure({"policy": str(tmp_path / "policy")})
    (tmp_path / "empty").mkdir()

    for bad in ({"policy": str(tmp_path / "empty")}, {"policy": 7}, {"policie": "x"}):
        await router.reconfigure(bad)
        state = router.describe()
        assert state.error
        assert state.policy is not None
        assert state.policy.policy_id == saved.policy_id
        assert (await decision(router, SUM)).policy_id == saved.policy_id


def started(folder: Path) -> Router:
    """A new replica on the machine whose state is in `folder`."""
    return Router(RouterArgs(device="cpu", batch_wait_ms=0), last_good=LastGood(lambda: folder))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return policy(tmp_path_factory.mktemp("trained") / "policy")


@pytest.fixture
def saved(trained: Policy, tmp_path: Path) -> Policy:
    """A policy in the folder `policy`."""
    return trained.save(tmp_path / "policy", "# Card\n")


async def test_a_replica_with_a_bad_config_starts_from_the_last_good(saved: Policy, tmp_path: Path) -> None:
    prices = {"sums": {"input": 500, "output": 500}}
    good = {"policy": str(tmp_path / "policy"), "prices": prices, "preferences": {"cost_weight": 5.0}}
    await started(tmp_path / "state").reconfigure(good)
    router = started(tmp_path / "state")
    await router.reconfigure({"policie": "x"})

    state = router.describe()
    assert state.policy is not None
    assert (state.policy.policy_id, state.policy.prices["sums"].input) == (saved.policy_id, 500)
    assert (await decision(router, SUM)).expert != "sums"
    assert "the last valid configuration, saved at 20" in (state.error or "")


async def test_the_last_good_policy_outlives_its_folder(saved: Policy, tmp_path: Path) -> None:
    folder, state = tmp_path / "policy", tmp_path / "state"
    await started(state).reconfigure({"policy": str(folder)})
    (folder / "router.safetensors").write_bytes(b"damaged")
    router = started(state)
    await router.reconfigure({"policy": str(folder)})

    assert "IntegrityError" in (router.describe().error or "")
    assert (await decision(router, SUM)).policy_id == saved.policy_id


async def test_a_damaged_copy_leaves_the_router_without_policy(saved: Policy, tmp_path: Path) -> None:
    await started(tmp_path / "state").reconfigure({"policy": str(tmp_path / "policy")})
    (tmp_path / "state" / "policies" / saved.policy_id / "CARD.md").write_text("other")
    router = started(tmp_path / "state")
    await router.reconfigure({"policy": "nowhere"})

    assert router.describe().policy is None
    assert "fails too: IntegrityError" in (router.describe().error or "")


async def test_a_router_whose_batch_hangs_is_unhealthy_and_not_ready(
    saved: Policy, tmp_path: Path, hang: threading.Event
) -> None:
    clock, no_time = Clock(), LoopBudget(longest_s=0)
    no_time.measured([len(SUM)], 1.0)
    router = Router(RouterArgs(device="cpu", batch_wait_ms=0), on_loop=no_time, clock=clock)
    await router.reconfigure({"policy": str(tmp_path / "policy")})
    router._worker.submit(hang.wait)
    waiting = asyncio.create_task(decision(router, SUM))
    await asyncio.sleep(0.01)
    await router.check_health()
    clock.now += BATCH_TIMEOUT_S + 1
    with pytest.raises(RuntimeError, match="a batch has taken 11 s so far"):
        await router.check_health()
    state = router.describe()

    assert state.policy is not None
    assert state.error == "a batch has taken 11 s so far"
    hang.set()
    await waiting
    await router.check_health()
    assert router.describe().error is None


async def test_a_policy_that_does_not_cover_the_experts_is_rejected(router: Router, tmp_path: Path) -> None:
    policy(tmp_path / "policy")

    await router.reconfigure({"policy": str(tmp_path / "policy"), "experts": ["sums", "stranger"]})

    assert "does not cover the experts stranger" in (router.describe().error or "")


async def test_configured_prices_and_preferences_override_the_policys(router: Router, tmp_path: Path) -> None:
    policy(tmp_path / "policy")
    prices = {"sums": {"input": 500, "output": 500}}

    await router.reconfigure(
        {"policy": str(tmp_path / "policy"), "prices": prices, "preferences": {"cost_weight": 5.0}}
    )

    assert (await decision(router, SUM)).expert != "sums"


async def test_a_users_method_is_served_as_ours_are(
    router: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users_method.install(tmp_path, monkeypatch)
    saved = policy(tmp_path / "policy", method="spelling", n=300)

    await router.reconfigure({"policy": str(tmp_path / "policy")})

    assert router.describe().error is None
    assert saved.method.name == "spelling"
    assert [(await decision(router, query)).expert for query in (SUM, SPELL)] == ["sums", "words"]


async def test_embeddings_are_kept_over_a_swap_of_the_policy(router: Router, tmp_path: Path) -> None:
    for name, method in (("first", "knn"), ("second", "linear")):
        policy(tmp_path / name, method)
    await router.reconfigure({"policy": str(tmp_path / "first")})
    await decision(router, SUM)
    await router.reconfigure({"policy": str(tmp_path / "second")})

    assert router._served is not None
    assert router._served.embeddings.get(SUM) is not None


async def test_an_encoders_relative_folder_begins_at_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "encoder").symlink_to(find(DEFAULT).folder)
    monkeypatch.setenv("TO_ROUTER_ROOT", str(tmp_path))
    policy(tmp_path / "policy")
    router = Router(RouterArgs(device="cpu", batch_wait_ms=0, encoder="encoder"))
    await router.reconfigure({"policy": "policy"})

    assert router.describe().error is None
    assert (await decision(router, SUM)).expert == "sums"
