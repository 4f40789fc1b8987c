"""The values that travel: what they reject, and that they survive the trip between processes."""

import copy
import inspect
import pickle  # noqa: TID251 - the trip between processes is made of it; nothing is stored

import numpy as np
import pytest

from router import errors
from router.core import Decision, ExpertView, Preferences, QueryBatch, RouteRequest
from router.errors import InputError, NoEligibleExpertError, PoolError, RouterError, SchemaVersionError
from router.experts import CandidatePool, ExpertProfile, Price
from tests.router.data_sets import training

ARGUMENTS = {
    NoEligibleExpertError: ({"a": "too dear"},),
    SchemaVersionError: (3, 2),
}
CLASSES = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, RouterError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_the_trip_between_processes(kind: type[RouterError]) -> None:
    error = kind(*ARGUMENTS.get(kind, ("what was found",)))
    back = pickle.loads(pickle.dumps(error))  # noqa: S301

    assert type(back) is kind
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_every_error_is_drawn_in_the_tree() -> None:
    assert errors.__doc__ is not None
    for kind in CLASSES:
        assert kind.__name__ in errors.__doc__


def test_a_request_and_a_decision_survive_the_trip() -> None:
    request = RouteRequest("q", Preferences(min_quality=0.5), {"a": "no"}, 3, 9, {"b": 2.0})
    decision = Decision(("a",), {"a": ExpertView(0.5, None, None, True)}, "id", True)

    assert copy.deepcopy(request) == request
    assert pickle.loads(pickle.dumps(decision)) == decision  # noqa: S301
    assert decision.expert == "a"


def test_no_eligible_expert_says_why_each_was_dropped() -> None:
    assert "a: too dear; b: asleep" in str(NoEligibleExpertError({"a": "too dear", "b": "asleep"}))
    assert "the candidate pool is empty" in str(NoEligibleExpertError({}))


def test_texts_and_embeddings_must_have_one_length() -> None:
    with pytest.raises(
        InputError, match=r"2 texts need embeddings of shape \[2, dimension\], found \[3, 4\]"
    ):
        QueryBatch(("a", "b"), np.zeros((3, 4)))
    with pytest.raises(InputError):
        QueryBatch(("a",), np.zeros(4))


def test_rows_are_taken_together() -> None:
    whole = training(20)
    part = whole.take(np.array([5, 2]))

    assert part.queries.texts == (whole.queries.texts[5], whole.queries.texts[2])
    np.testing.assert_array_equal(part.quality, whole.quality[[5, 2]])
    assert part.tasks is not None
    assert whole.tasks is not None
    assert part.tasks == (whole.tasks[5], whole.tasks[2])
    assert len(part) == 2


@pytest.mark.parametrize("names", [(), ("a", "a")])
def test_a_pool_is_neither_empty_nor_repeats(names: tuple[str, ...]) -> None:
    with pytest.raises(PoolError):
        CandidatePool.of(*names)


def test_a_pool_keeps_its_order_and_names_strangers() -> None:
    pool = CandidatePool.of("b", "a")

    assert pool.names == ("b", "a")
    assert (pool.column("a"), "a" in pool, "c" in pool, len(pool)) == (1, True, False, 2)
    assert pool == CandidatePool.of("b", "a")
    assert pool != CandidatePool.of("a", "b")
    with pytest.raises(PoolError, match=r"'c' is not in the candidate pool \(b, a\)"):
        pool.column("c")


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", True, None])
def test_a_price_is_a_finite_number_of_at_least_0(value: object) -> None:
    with pytest.raises(PoolError, match="price"):
        Price(value, 1.0)  # type: ignore[arg-type]


def test_a_request_costs_its_tokens_at_the_price() -> None:
    assert Price(1.0, 2.0).cost_usd(1e6, 5e5) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({}, "name: missing"),
        ({"name": ""}, "name: String should have at least 1 character, found ''"),
        ({"name": "a", "prise": 1}, "prise: unknown key.* `price_per_mtok"),
        ({"name": "a", "price_per_mtok": 3}, r"\{input, output\}"),
        ({"name": "a", "price_per_mtok": {"input": 1}}, r"\{input, output\}"),
        ({"name": "a", "price_per_mtok": {"input": 1, "output": "x"}}, "price"),
        ({"name": "a", "context_window": -5}, "context_window"),
        ({"name": "a", "context_window": True}, "context_window"),
        ({"name": "a", "capabilities": "tools"}, "capabilities: .*, found 'tools'"),
        ({"name": "a", "capabilities": [1]}, r"capabilities\.0: Input should be a valid string, found 1"),
    ],
)
def test_an_invalid_profile_is_rejected(entry: dict[str, object], told: str) -> None:
    with pytest.raises(PoolError, match=told):
        ExpertProfile.from_json(entry)


def test_a_profile_comes_back_from_json() -> None:
    profile = ExpertProfile("a", Price(1, 2), 4096, frozenset({"tools"}))

    assert ExpertProfile.from_json(profile.to_json()) == profile
    assert ExpertProfile.from_json({"name": "a"}) == ExpertProfile("a")
