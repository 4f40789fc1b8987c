"""The first encoder is taken unless another decides better beyond chance; all on training data."""

from dataclasses import replace

import numpy as np
import pytest

from router.core import FloatArray
from router.data.dataset import Dataset
from router.encoders import EncoderSpec
from router.training.encoder_choice import Encoded, choose, train_choosing
from tests.router.data_sets import dataset, embeddings

CHEAP = EncoderSpec("cheap", "0" * 64, 16, 128, "static")
LARGE = EncoderSpec("large", "1" * 64, 16, 128)


def noise(data: Dataset) -> FloatArray:
    """Embeddings that say nothing of the query."""
    rows = np.random.default_rng(1).normal(size=(len(data), 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return dataset(160)


def test_a_clearly_better_encoder_is_taken(data: Dataset) -> None:
    steps: list[str] = []
    policy = train_choosing(
        data,
        [Encoded(CHEAP, noise(data)), Encoded(LARGE, embeddings(data.texts))],
        method="knn",
        notify=steps.append,
    )
    first, second = policy.training["encoders"]["tried"]

    assert policy.encoder == LARGE
    assert policy.training["encoders"]["measure"] == "aiq"
    assert second["difference"] > second["standard_error"] > 0
    assert first["difference"] == 0
    assert any("large" in step for step in steps)


def test_an_equal_encoder_is_not_worth_its_time(data: Dataset) -> None:
    same = embeddings(data.texts)
    policy = train_choosing(data, [Encoded(CHEAP, same), Encoded(LARGE, same)], method="knn")

    assert policy.encoder == CHEAP


def test_one_encoder_is_taken_without_a_comparison(data: Dataset) -> None:
    policy = train_choosing(data, [Encoded(LARGE, embeddings(data.texts))], method="knn")

    assert policy.encoder == LARGE
    assert "encoders" not in policy.training


def test_a_difference_within_its_error_is_none(data: Dataset) -> None:
    scores = data.quality + np.random.default_rng(0).normal(size=data.quality.shape)
    other = scores + 1e-3 * np.random.default_rng(1).normal(size=scores.shape)
    index, facts = choose([scores, other], data, ["a", "b"], seed=0)

    assert index == 0
    assert abs(facts["tried"][1]["difference"]) < 0.02


def test_without_costs_quality_decides(data: Dataset) -> None:
    free = replace(data, measured={"quality": data.quality})
    index, facts = choose([-data.quality, data.quality], free, ["a", "b"], seed=0)

    assert (index, facts["measure"]) == (1, "quality")


def test_of_two_experts_without_costs_the_share_of_calls_counts(data: Dataset) -> None:
    pair = replace(data, measured={"quality": data.quality}).only(["words", "large"])
    scores = np.tile(pair.quality.mean(axis=0), (len(pair), 1))
    index, facts = choose([scores, pair.quality], pair, ["a", "b"], seed=0)

    assert (index, facts["measure"]) == (1, "aiq")
    assert facts["tried"][1]["value"] > facts["tried"][0]["value"]


def test_without_a_complete_query_the_first_is_taken(data: Dataset) -> None:
    holes = data.quality.copy()
    holes[np.arange(len(data)), np.arange(len(data)) % 3] = np.nan
    index, facts = choose(
        [data.quality, -data.quality], replace(data, measured={"quality": holes}), ["a", "b"], seed=0
    )

    assert (index, facts["measure"]) == (0, "none")
