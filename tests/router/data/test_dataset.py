"""The wide table and its splits."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.data.dataset import clear_of, load_pool, split_by_query, to_dataset
from router.errors import OutcomesError, PoolError
from router.experts import CandidatePool, Price
from tests.router.data_sets import POOL, dataset, rows


def test_rows_become_a_table_in_the_pools_order() -> None:
    found = to_dataset(rows(20), pool=CandidatePool.of("large", "sums"))

    assert found.pool.names == ("large", "sums")
    assert found.quality.shape == (20, 2)
    assert found.quality[3, 1] == next(
        row["quality"] for row in rows(20) if row["query_id"] == "q3" and row["expert"] == "sums"
    )
    assert found.tasks is not None
    assert set(found.tasks) == {"sums", "words"}


def test_what_was_not_measured_is_nan_and_its_row_incomplete() -> None:
    found = to_dataset([row for row in rows(10) if (row["query_id"], row["expert"]) != ("q4", "words")])

    assert np.isnan(found.quality[4, found.pool.column("words")])
    assert found.complete().tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_further_samples_are_tables_of_the_same_queries() -> None:
    made = [{**row, "sample": 0, "response": "one"} for row in rows(10)]
    made += [{**row, "sample": 1, "response": "two", "quality": 0.5} for row in rows(10)[:6]]

    found = to_dataset(made).take(np.array([1, 7])).only(["large", "sums"])

    (second,) = found.samples
    assert found.written["response"].tolist() == [["one", "one"], ["one", "one"]]
    assert second.written["response"].tolist() == [["two", "two"], [None, None]]
    assert second.texts == found.texts
    np.testing.assert_array_equal(second.quality, [[0.5, 0.5], [np.nan, np.nan]])


def test_an_expert_without_any_outcome_is_named() -> None:
    with pytest.raises(PoolError, match="holds no outcome of nobody; it holds sums, words, large"):
        to_dataset(rows(5), pool=CandidatePool.of("sums", "nobody"))


def test_measured_costs_come_before_priced_tokens() -> None:
    priced = dataset(5)
    paid = to_dataset([row | {"cost_usd": 0.25} for row in rows(5)], pool=POOL)

    assert priced.costs_usd is not None
    assert priced.costs_usd[0, 2] == pytest.approx(
        (12 * 0.5 + priced.measured["completion_tokens"][0, 2]) / 1e6
    )
    assert (paid.costs_usd == 0.25).all()
    assert to_dataset(rows(5)).costs_usd is None


def test_the_hash_is_of_the_data_and_not_of_its_order() -> None:
    made = rows(20)
    turned = [row for number in reversed(range(20)) for row in made[3 * number : 3 * number + 3]]
    changed = [dict(row) for row in made]
    changed[0]["quality"] = 1 - changed[0]["quality"]

    assert to_dataset(made).sha256 == to_dataset(turned).sha256
    assert to_dataset(made).sha256 != to_dataset(changed).sha256


def test_a_split_is_taken_by_name_and_an_unknown_one_lists_all() -> None:
    made = [row | {"split": "test" if row["query_id"] < "q3" else "train"} for row in rows(9)]
    found = to_dataset(made)

    assert len(found.split_rows("test")) == 3
    with pytest.raises(OutcomesError, match=r"no split 'dev' in the outcomes; splits: test, train"):
        found.split_rows("dev")


@given(st.lists(st.text(max_size=3), min_size=2, max_size=60), st.integers(0, 5))
def test_identical_queries_never_straddle_a_split(texts: list[str], seed: int) -> None:
    first, second = split_by_query(texts, fraction=0.3, seed=seed)

    assert sorted([*first, *second]) == list(range(len(texts)))
    inside = {" ".join(texts[i].split()).casefold() for i in first}
    assert inside.isdisjoint({" ".join(texts[i].split()).casefold() for i in second})


def test_a_split_has_its_size_and_depends_on_the_seed_alone() -> None:
    texts = [f"query {number}" for number in range(1000)]
    _, second = split_by_query(texts, fraction=0.3, seed=1)
    turned = split_by_query(texts[::-1], fraction=0.3, seed=1)[1]

    assert len(second) == 300
    assert {texts[i] for i in second} == {texts[::-1][i] for i in turned}
    assert second.tolist() != split_by_query(texts, fraction=0.3, seed=2)[1].tolist()


def test_queries_of_another_split_too_are_removed() -> None:
    made = rows(6)
    for row in made:
        if row["query_id"] == "q5":
            row["query"] = "  " + made[0]["query"].upper()
    found = to_dataset(made)

    assert clear_of(found, np.array([1, 2, 5]), np.array([0, 3, 4])).tolist() == [1, 2]


def test_a_pool_file_gives_prices_windows_and_order(tmp_path: Path) -> None:
    file = tmp_path / "experts.yaml"
    file.write_text(
        "experts:\n"
        "  - {name: b, price_per_mtok: {input: 1, output: 2}, context_window: 512, capabilities: [tools]}\n"
        "  - name: a\n"
    )
    pool = load_pool(file)

    assert pool.names == ("b", "a")
    assert pool["b"].price == Price(1, 2)
    assert pool["b"].context_window == 512
    assert pool["a"].price is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("experts: {", "cannot be read as YAML"),
        ("[]", "must hold a list `experts`"),
        ("experts: [a, b]", "must hold a list `experts`"),
        ("experts: [{name: a, prise: 3}]", "prise: unknown key"),
        ("experts: []", "at least one expert"),
        ("experts: [{name: a}, {name: a}]", "duplicated: a"),
    ],
)
def test_an_invalid_pool_file_is_rejected_by_name(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "experts.yaml").write_text(text)
    with pytest.raises(PoolError, match=told) as caught:
        load_pool(tmp_path / "experts.yaml")
    assert "experts.yaml" in str(caught.value)
