"""A variant's requests reach its engine changed, and its responses carry its own name."""

from typing import Any

import orjson
import pytest

from deployments.contracts.protocols import ResponseStream
from deployments.contracts.variants import ADAPTER, Variant
from deployments.upstream.variant_client import VariantClient, with_model, with_model_in_events
from tests.deployments.fakes import EVENTS, JSON, FakeExpert, answer, event

CHAT = "/v1/chat/completions"
REQUEST = orjson.dumps({"model": "qwen", "messages": [{"role": "user", "content": "hi"}]})


async def opened(
    engine: FakeExpert, variant: Variant, path: str = CHAT, *, in_cluster: bool = True
) -> ResponseStream:
    client = VariantClient(engine, "qwen-sql", variant, in_cluster=in_cluster)
    return await client.open("POST", path, (), REQUEST, 5.0)


async def read(stream: ResponseStream) -> bytes:
    return stream.head.body + b"".join([chunk async for chunk in stream.rest])


async def test_the_engine_gets_the_variants_fields_and_its_adapter() -> None:
    engine = FakeExpert("qwen")
    await opened(engine, Variant(adapter="sql", reasoning="low", fields={"temperature": 0}))

    assert engine.body() == {**orjson.loads(REQUEST), "reasoning_effort": "low", "temperature": 0}
    assert engine.asked[0][2][ADAPTER] == b"sql"


async def test_an_adapter_alone_leaves_the_body_as_it_is() -> None:
    engine = FakeExpert("qwen")
    await opened(engine, Variant(adapter="sql"))

    assert engine.asked[0][3] == REQUEST


async def test_without_an_adapter_the_header_is_empty() -> None:
    engine = FakeExpert("qwen")
    await opened(engine, Variant(reasoning="low"))

    assert engine.asked[0][2][ADAPTER] == b""


async def test_a_model_elsewhere_gets_no_header_of_ours() -> None:
    engine = FakeExpert("qwen")
    await opened(engine, Variant(reasoning="low"), in_cluster=False)

    assert ADAPTER not in engine.asked[0][2]


async def test_a_non_streaming_response_has_the_variants_name() -> None:
    stream = await opened(FakeExpert("qwen", answer("sql@0123")), Variant(adapter="sql"))

    assert orjson.loads(await read(stream)) == orjson.loads(answer("qwen-sql"))


async def test_a_response_in_pieces_is_renamed_as_a_whole() -> None:
    whole = answer("sql@0123")
    pieces = [whole[:20], whole[20:50], whole[50:]]
    stream = await opened(FakeExpert("qwen", *pieces), Variant(adapter="sql"))

    assert [chunk async for chunk in stream.rest][:-1] == [b"", b""]
    again = await opened(FakeExpert("qwen", *pieces), Variant(adapter="sql"))
    assert orjson.loads(await read(again))["model"] == "qwen-sql"


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
async def test_each_event_of_a_stream_has_the_name_wherever_it_is_cut(size: int) -> None:
    whole = event("sql@0123", "a") + event("sql@0123", "b") + b"data: [DONE]\n\n"
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    stream = await opened(FakeExpert("qwen", *pieces, headers=EVENTS), Variant(adapter="sql"))

    body = await read(stream)
    events = [orjson.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]
    assert [one["model"] for one in events] == ["qwen-sql"] * 2
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "data",
    [
        {"type": "message_start", "message": {"model": "x", "role": "assistant"}},
        {"type": "response.created", "response": {"model": "x"}},
        {"id": 1, "model": "x"},
    ],
)
def test_the_name_changes_in_events_of_every_endpoint(data: dict[str, Any]) -> None:
    events = b"event: any\r\ndata: " + orjson.dumps(data) + b"\r\n\r\n"

    changed = with_model_in_events(events, "new")

    assert b'"model":"new"' in changed
    assert changed.startswith(b"event: any\r\n")
    assert changed.endswith(b"\r\n\r\n")


def test_a_models_name_inside_an_answer_stays() -> None:
    body = orjson.dumps({"content": [{"input": {"model": "x"}, "text": '"model":"x"'}], "model": "x"})

    changed = orjson.loads(with_model(body, "new"))

    assert changed["model"] == "new"
    assert changed["content"] == [{"input": {"model": "x"}, "text": '"model":"x"'}]


@pytest.mark.parametrize("body", [b"", b"[1]", b"not json", b'{"model":null}'])
def test_what_has_no_name_passes_untouched(body: bytes) -> None:
    assert with_model(body, "new") == body


async def test_errors_and_other_content_pass_untouched() -> None:
    error = b'{"model":"x","error":{}}'
    failed = await opened(FakeExpert("qwen", error, status=500), Variant(adapter="sql"))
    binary = FakeExpert("qwen", error, headers=((b"content-type", b"application/octet-stream"),))
    other = await opened(binary, Variant(adapter="sql"), "/v1/embeddings")

    assert failed.head.body == error
    assert other.head.body == error


@pytest.mark.parametrize("headers", [JSON, EVENTS])
async def test_a_response_that_is_closed_closes_the_engines(headers: Any) -> None:
    engine = FakeExpert("qwen", *[b"data: {}\n\n"] * 3, headers=headers)
    stream = await opened(engine, Variant(adapter="sql"))
    await anext(stream.rest)
    await stream.aclose()

    assert engine.closed == 1


async def test_retiring_a_variant_retires_its_engines_client() -> None:
    engine = FakeExpert("qwen")
    await VariantClient(engine, "v", Variant(adapter="sql"), in_cluster=True).retire()

    assert engine.retired
