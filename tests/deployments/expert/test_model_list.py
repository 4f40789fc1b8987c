"""The list of models of an expert's replica."""

from pathlib import Path

import orjson

from deployments.contracts.messages import Head
from deployments.expert.model_list import with_shape

SHAPE = {"hidden_size": 64}
ADAPTER = {"id": "sql", "root": "/adapters/sql", "parent": "a"}
CARDS = [{"id": "a", "root": "/cache/a", "max_model_len": 512}, ADAPTER]
LISTED = orjson.dumps({"object": "list", "data": CARDS})


def head(status: int, body: bytes) -> Head:
    sent = ((b"content-type", b"application/json"), (b"Content-Length", str(len(body)).encode()))
    return Head(status, sent, body, complete=True)


def test_the_models_card_has_its_name_and_its_shape() -> None:
    found = with_shape(head(200, LISTED), "acme/a", SHAPE)

    card, adapter = orjson.loads(found.body)["data"]
    assert adapter == ADAPTER
    assert card == {"id": "a", "root": "acme/a", "max_model_len": 512, "config": SHAPE}
    assert dict(found.headers) == {
        b"content-type": b"application/json",
        b"content-length": str(len(found.body)).encode(),
    }


def test_a_folder_shows_its_last_name_alone(tmp_path: Path) -> None:
    folder = tmp_path / "chat"
    folder.mkdir()

    card, _ = orjson.loads(with_shape(head(200, LISTED), str(folder), SHAPE).body)["data"]
    assert card["root"] == "chat"


def test_an_error_is_unchanged() -> None:
    failed = head(500, b"no JSON")

    assert with_shape(failed, "acme/a", SHAPE) is failed
