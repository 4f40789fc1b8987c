"""The replica sets the model of a body; what follows it is not read."""

import orjson
import pytest

from deployments.contracts.requests import parse
from deployments.contracts.variants import ADAPTER
from deployments.expert.requested_model import adapter_in, with_model

CHAT = {"model": "auto", "messages": [{"role": "user", "content": 'say {"model":"x"}'}], "top_k": 3}


@pytest.mark.parametrize("name", ["qwen", 'a"b\\', "ü", "a/b:c@d"])
def test_the_first_field_of_an_ingress_body_is_replaced(name: str) -> None:
    body = parse("/v1/chat/completions", orjson.dumps(CHAT), max_messages=8).body_for(name, "salt")
    changed = with_model(body, 'sql@"0123')

    assert orjson.loads(changed) == {**orjson.loads(body), "model": 'sql@"0123'}
    assert changed.count(b'"model"') == body.count(b'"model"')


@pytest.mark.parametrize("body", [b'{"a":1,"model":"x"}', b'{ "model" : "x" }', b"{}"])
def test_any_other_body_is_read(body: bytes) -> None:
    assert orjson.loads(with_model(body, "new"))["model"] == "new"


def test_an_empty_adapter_is_the_model_itself() -> None:
    assert adapter_in(((ADAPTER, b"sql"),)) == "sql"
    assert adapter_in(((ADAPTER, b""),)) == ""
    assert adapter_in(((b"accept", b"x"),)) is None
