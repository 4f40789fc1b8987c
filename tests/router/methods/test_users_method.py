"""A method that a user installs beside ours works wherever ours do, without a change to ours."""

from pathlib import Path

import numpy as np
import pytest

from router.core import QueryBatch, RouteRequest
from router.encoders import EncoderSpec
from router.errors import MethodError
from router.evaluation.comparison import compare
from router.methods.registry import make, names
from router.policy import Policy
from router.training.encoder_choice import Encoded
from router.training.train import train
from tests.router.data_sets import dataset, embeddings
from tests.router.methods.users_method import install

SPEC = EncoderSpec("test", "0" * 64, 16, 128)


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)


def test_it_is_known_by_name() -> None:
    assert "spelling" in names()
    assert make("spelling", {"word": "Say"}).params == {"word": "Say"}


def test_it_trains_saves_loads_and_decides_as_ours_do(tmp_path: Path) -> None:
    data = dataset(300)
    train(data, embeddings(data.texts), SPEC, method="spelling").save(tmp_path / "policy", "# Card\n")

    served = Policy.load(tmp_path / "policy")
    texts = ("What is 1 plus 1?", "Spell the word cab backwards")
    decisions = served.decide(QueryBatch(texts, embeddings(texts)), [RouteRequest(text) for text in texts])

    assert served.method.name == "spelling"
    assert [getattr(decision, "expert", None) for decision in decisions] == ["sums", "words"]


def test_it_works_in_a_comparison_and_in_an_ensemble() -> None:
    data = dataset(200)
    points = embeddings(data.texts)

    found = compare(data, {"default": [Encoded(SPEC, points)]}, methods=["spelling", "knn"], seeds=[0])
    blend = make("ensemble", {"members": ["spelling", "knn"]})
    policy = train(data, points, SPEC, method="ensemble", params=blend.params)

    assert set(found["methods"]) == {"spelling", "knn"}
    assert np.isfinite(policy.score(QueryBatch(data.texts, points)).quality).all()


def test_an_object_that_is_no_method_is_rejected() -> None:
    with pytest.raises(MethodError, match="lacks fit"):
        make("nothing")
