"""Samples of the queries give the reported figures, and outcomes with splits are trained on one of them."""

from dataclasses import replace

import numpy as np
import pytest

from experiments import encoders
from experiments.pocket_outcomes import TESTED, TRAINED
from router.encoders import EncoderSpec
from router.evaluation.evaluate import judge, report
from router.training.train import train
from tests.router.data_sets import dataset, embeddings

SPEC = EncoderSpec("made-up", "0" * 64, 16, 128)


@pytest.mark.parametrize(
    ("figure", "experts"), [("aiq", ["sums", "words", "large"]), ("apgr", ["words", "large"])]
)
def test_a_sample_of_every_query_once_gives_the_report(figure: str, experts: list[str]) -> None:
    data = dataset(120).only(experts)
    policy = train(data, embeddings(data.texts), SPEC, method="knn")
    judged = judge(policy, data, embeddings(data.texts))
    once = np.ones((1, len(data)), dtype=np.int64)

    (value,) = encoders.resampled(judged, once, figure)

    assert value == pytest.approx(report(judged)[figure], abs=1e-12)


def test_outcomes_with_splits_are_trained_and_tested_apart() -> None:
    data = dataset(100)
    splits = tuple(TRAINED if row < 60 else TESTED for row in range(100))

    inside, outside = encoders.parts(replace(data, splits=splits), 0.5, seed=0)

    assert len(inside)
    assert len(outside)
    assert inside.max() < 60 <= outside.min()
