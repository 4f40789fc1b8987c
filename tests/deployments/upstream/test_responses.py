"""Errors in the streams of `/v1/messages`, as vLLM's converter of chat streams writes them."""

import orjson
import pytest
from pydantic import BaseModel, ValidationError

from deployments.contracts.errors import BadRequest, ExpertBroken
from deployments.contracts.messages import Head
from deployments.contracts.protocols import ResponseStream
from deployments.upstream.responses import read_first_event
from tests.deployments.fakes import EVENTS, FakeExpert


class ChatCompletionStreamResponse(BaseModel):
    """The fields that vLLM's class of this name requires."""

    model: str
    choices: list[str]


def converted(error: dict[str, object]) -> bytes:
    """The event that vLLM makes of an error in the chat stream."""
    with pytest.raises(ValidationError) as caught:
        ChatCompletionStreamResponse.model_validate_json(orjson.dumps({"error": error}))
    data = {"type": "error", "error": {"type": "internal_error", "message": str(caught.value)}}
    return b"event: error\ndata: " + orjson.dumps(data) + b"\n\n"


async def read(events: bytes) -> None:
    stream = ResponseStream(Head(200, tuple(EVENTS), events, complete=True), FakeExpert("a")._rest([]))
    await read_first_event("a", stream, 1.0)


@pytest.mark.parametrize("param", ["logit_bias", None])
@pytest.mark.parametrize("message", ["token_id 999999 is out of the vocabulary", "short"])
async def test_a_bad_parameter_is_the_clients_although_the_converter_failed(
    message: str, param: str | None
) -> None:
    error = {"message": message, "type": "BadRequestError", "param": param, "code": 400}

    with pytest.raises(BadRequest) as caught:
        await read(converted(error))
    assert "ChatCompletionStreamResponse" not in str(caught.value)


async def test_an_engines_own_fault_stays_one() -> None:
    error = {"message": "engine dead", "type": "InternalServerError", "param": None, "code": 500}

    with pytest.raises(ExpertBroken):
        await read(converted(error))
