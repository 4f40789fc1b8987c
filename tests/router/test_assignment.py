"""Times follow from loads, and what is decided for one request is load for the next."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router.assignment import BEHIND, Queue, times
from router.core import Decision, ExpertLoad, PlanView, Preferences, QueryBatch, RouteRequest
from router.decide import reasons
from router.encoders import EncoderSpec
from router.policy import Policy
from router.training.train import train
from tests.router.data_sets import dataset, embeddings
from tests.router.test_decide import view

QUERY = "What is 3 plus 4?"
SUMS, LARGE = "sums", "large"


@pytest.fixture(scope="module")
def policy() -> Policy:
    data = dataset(240)
    return train(data, embeddings(data.texts), EncoderSpec("test", "0" * 64, 16, 128), method="knn", seed=0)


def decided(policy: Policy, n: int, *, ahead: Any = None, **request: Any) -> list[Decision]:
    texts = (QUERY,) * n
    batch = QueryBatch(texts, embeddings(texts))
    return policy.decide(batch, [RouteRequest(text, **request) for text in texts], ahead=ahead)


def loads(**wait_s: float) -> dict[str, ExpertLoad]:
    return {name: ExpertLoad(wait, 0.001, 0.01, added_wait_s=1.0) for name, wait in wait_s.items()}


PRICED: dict[str, Any] = {
    "load": loads(sums=0.1, words=9.0, large=0.1),
    "preferences": Preferences(0.0, latency_weight=0.2),
}


def test_times_add_wait_prefill_and_tokens() -> None:
    load = {
        "a": ExpertLoad(0.5, 0.001, 0.02, 60, added_wait_s=0.5, added_s_per_output_token=0.02, free_slots=1)
    }
    queue = Queue(("a", "b"), {"a": 2, "gone": 7})
    found = times(load, np.array([100.0, 100.0]), np.array([10.0, 10.0]), queue, ("a", "b"))

    assert found.queue[0] == pytest.approx(1000)
    assert found.ttft[0] == pytest.approx(1040)
    assert found.latency[0] == pytest.approx(1040 + 400)
    assert np.isnan([found.queue[1], found.ttft[1], found.latency[1]]).all()


def test_a_cached_prompt_is_never_less_than_no_prefill() -> None:
    found = times(
        {"a": ExpertLoad(0.0, 1.0, 0.0, cached_tokens=99)},
        np.array([9.0]),
        np.array([1.0]),
        Queue("a", {}),
        "a",
    )

    assert found.ttft[0] == 0


def test_a_plan_is_load_for_each_of_its_members() -> None:
    plan = PlanView(view(0.9), ask=("a", "b"), samples=1, otherwise="c", p_accept=0.75, hold_ms=None)
    queue = Queue(("a", "b", "c"), {})
    queue.add(Decision(("p",), {}, "id", plans={"p": plan}))
    queue.add(Decision((), {}, "id"))

    assert queue.ahead == [1, 1, 0.25]


def test_a_burst_spreads_once_waits_have_a_price(policy: Policy) -> None:
    request = {
        "load": loads(sums=0.1, words=9.0, large=0.1),
        "preferences": Preferences(0.0, latency_weight=0.2),
    }
    chosen = [decision.expert for decision in decided(policy, 6, **request)]

    assert chosen[0] == SUMS
    assert {SUMS, LARGE} == set(chosen)
    assert chosen.count(SUMS) >= chosen.count(LARGE)


def test_requests_in_transit_count_as_load(policy: Policy) -> None:
    request = {
        "load": loads(sums=0.1, words=9.0, large=0.1),
        "preferences": Preferences(0.0, latency_weight=0.2),
    }
    (decision,) = decided(policy, 1, ahead={SUMS: 5}, **request)

    assert decision.expert == LARGE
    assert decision.experts[SUMS].wait_ms == pytest.approx(5100)
    assert "it would come first if time did not count" in reasons(decision)[SUMS]


def test_loads_change_nothing_without_a_preference(policy: Policy) -> None:
    plain = decided(policy, 3)
    loaded = decided(policy, 3, load=loads(sums=50.0, words=0.0, large=0.0))

    assert [one.ranking for one in loaded] == [one.ranking for one in plain]
    assert [one.experts[SUMS].utility for one in loaded] == [one.experts[SUMS].utility for one in plain]


def test_an_expert_beyond_max_latency_is_excluded(policy: Policy) -> None:
    (decision,) = decided(
        policy, 1, load=loads(sums=2.0, large=0.1), preferences=Preferences(max_latency_ms=1000)
    )

    assert SUMS not in decision.ranking
    assert "above max_latency_ms 1000" in decision.exclusions[SUMS]
    assert "words" in decision.ranking  # what is unknown exceeds no limit


def test_cached_prefixes_keep_a_conversation_until_the_gain(policy: Policy) -> None:
    cold = {name: ExpertLoad(0.0, 0.001, 0.0) for name in (SUMS, "words", LARGE)}
    held = {**cold, LARGE: ExpertLoad(0.0, 0.001, 0.0, cached_tokens=1500)}
    for weight, expert in ((0.5, LARGE), (0.001, SUMS)):
        preferences = Preferences(0.0, latency_weight=weight)
        (decision,) = decided(policy, 1, load=held, preferences=preferences, prompt_tokens=1500)
        assert decision.expert == expert


def test_a_preference_that_is_unset_is_not_saved(policy: Policy, tmp_path: Any) -> None:
    policy.save(tmp_path / "plain", "# Card\n")
    timed = policy.with_overrides(preferences=Preferences(latency_weight=0.01))
    timed.save(tmp_path / "timed", "# Card\n")

    assert "latency_weight" not in (tmp_path / "plain" / "manifest.json").read_text()
    assert Policy.load(tmp_path / "timed").preferences.latency_weight == 0.01


def test_a_queue_costs_more_than_the_own_wait(policy: Policy) -> None:
    alike = ExpertLoad(3.0, 0.001, 0.01)
    load = {SUMS: replace(alike, queued_s=2.0), "words": alike, LARGE: alike}
    preferences = Preferences(0.0, latency_weight=0.2)
    (decision,) = decided(policy, 1, load=load, preferences=preferences)
    queued, free = decision.experts[SUMS], decision.experts[LARGE]

    assert decision.expert == LARGE
    assert queued.latency_ms is not None
    assert queued.latency_penalty == pytest.approx(0.2 * (queued.latency_ms / 1000 + BEHIND * 2.0))
    assert free.latency_ms is not None
    assert free.latency_penalty == pytest.approx(0.2 * free.latency_ms / 1000)
