"""Collection through an endpoint: every pair once, nothing lost, no failure counted as a bad answer."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.collection.collect import Collected, collect, read_queries
from router.data.outcomes import read_rows
from router.errors import InputError, OutcomesError

QUERIES = [
    {"query_id": f"q{n}", "query": f"question {n}", "reference": str(n), "task": "t"} for n in range(6)
]
Handler = Callable[[dict[str, Any]], httpx.Response]


def stream(text: str, **usage: int) -> httpx.Response:
    events: list[dict[str, Any]] = [{"choices": [{"delta": {"content": piece}}]} for piece in text]
    events.append({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(text), **usage}})
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return sse("".join([*lines, "data: [DONE]\n\n"]))


def sse(text: str) -> httpx.Response:
    return httpx.Response(200, text=text, headers={"content-type": "text/event-stream; charset=utf-8"})


class Endpoint:
    """An OpenAI endpoint of two experts, in process."""

    def __init__(self, answer: Handler) -> None:
        self.answer, self.asked = answer, []
        self.headers: list[httpx.Headers] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.headers.append(request.headers)
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "auto"}, {"id": "a"}, {"id": "b"}]})
        body = json.loads(request.content)
        self.asked.append((body["messages"][0]["content"], body["model"]))
        return self.answer(body)


async def collected(endpoint: Endpoint, out: Path, **options: Any) -> Collected:
    async def no_wait(seconds: float) -> None:
        endpoint.asked.append(("waited", seconds))

    return await collect(
        "http://test/v1/",
        options.pop("queries", QUERIES),
        options.pop("experts", ["a", "b"]),
        out,
        transport=httpx.MockTransport(endpoint),
        sleep=no_wait,
        **options,
    )


async def test_every_expert_gets_every_query_once(tmp_path: Path) -> None:
    endpoint, told = Endpoint(lambda body: stream(body["model"] * 3)), []
    done = await collected(endpoint, tmp_path / "o.jsonl", api_key="secret", progress=told.append)
    rows = read_rows(tmp_path / "o.jsonl")

    assert done == Collected(12, 0, ())
    assert sorted(endpoint.asked) == sorted((q["query"], e) for q in QUERIES for e in "ab")
    assert sum(told) == 12
    assert endpoint.headers[1]["authorization"] == "Bearer secret"
    row = next(row for row in rows if (row["query_id"], row["expert"]) == ("q3", "b"))
    assert row["response"] == "bbb"
    assert (row["prompt_tokens"], row["completion_tokens"]) == (7, 3)
    assert (row["reference"], row["task"]) == ("3", "t")
    assert 0 <= row["ttft_s"] <= row["latency_s"]
    assert "quality" not in row


async def test_a_second_run_sends_only_missing_pairs(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    await collected(Endpoint(lambda body: stream("x")), out, queries=QUERIES[:2])
    endpoint = Endpoint(lambda body: stream("y"))
    done = await collected(endpoint, out)

    assert (done.collected, done.kept_from_before) == (8, 4)
    assert not {text for text, _ in endpoint.asked} & {"question 0", "question 1"}
    assert len(read_rows(out)) == 12


async def test_a_line_cut_off_by_an_interrupt_is_collected_again(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    await collected(Endpoint(lambda body: stream("x")), out, experts=["a"])
    out.write_bytes(out.read_bytes()[:-20])
    done = await collected(Endpoint(lambda body: stream("x")), out, experts=["a"])

    assert (done.collected, done.kept_from_before) == (1, 5)
    assert len(read_rows(out)) == 6


async def test_a_busy_endpoint_is_retried_after_its_retry_after(tmp_path: Path) -> None:
    busy = [httpx.Response(503, headers={"retry-after": "4"}), httpx.Response(429)]
    endpoint = Endpoint(lambda body: busy.pop(0) if busy else stream("x"))
    done = await collected(endpoint, tmp_path / "o.jsonl", queries=QUERIES[:1], experts=["a"])

    assert done.collected == 1
    assert [second for first, second in endpoint.asked if first == "waited"] == [4.0, 2.0]


async def test_a_lost_connection_is_tried_again(tmp_path: Path) -> None:
    lost = [True]

    def answer(body: dict[str, Any]) -> httpx.Response:
        if lost.pop() if lost else False:
            raise httpx.ConnectError("gone")
        return stream("x")

    done = await collected(Endpoint(answer), tmp_path / "o.jsonl", queries=QUERIES[:1], experts=["a"])

    assert done == Collected(1, 0, ())


async def test_a_pair_without_an_answer_is_reported_and_not_written(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> httpx.Response:
        if body["model"] == "a":
            return httpx.Response(400, text="too long")
        return sse('data: {"error": {"message": "engine died"}}\n\ndata: [DONE]\n\n')

    done = await collected(Endpoint(answer), tmp_path / "o.jsonl", queries=QUERIES[:1])

    assert done.collected == 0
    assert sorted(done.failed) == [
        "q0 a: status 400: too long",
        "q0 b: the stream broke off: engine died",
    ]
    assert (tmp_path / "o.jsonl").read_text() == ""


@pytest.mark.parametrize("text", ["", "data: nonsense\n\n", 'data: {"choices": []}\n\n'])
async def test_a_stream_that_ends_early_is_no_answer(tmp_path: Path, text: str) -> None:
    endpoint = Endpoint(lambda body: sse(text))
    done = await collected(endpoint, tmp_path / "o.jsonl", queries=QUERIES[:1], experts=["a"])

    assert done.collected == 0
    assert len(done.failed) == 1


async def test_a_response_that_is_no_stream_is_no_answer(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda body: httpx.Response(200, json={"choices": []}))
    done = await collected(endpoint, tmp_path / "o.jsonl", queries=QUERIES[:1], experts=["a"])

    assert done.collected == 0
    assert "not a stream of events" in done.failed[0]


async def test_an_endpoint_that_stays_busy_is_reported(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda body: httpx.Response(503, text="busy"))
    done = await collected(endpoint, tmp_path / "o.jsonl", queries=QUERIES[:1], experts=["a"])

    assert done.failed == ("q0 a: status 503: busy",)
    assert [second for first, second in endpoint.asked if first == "waited"] == [1.0, 2.0, 4.0]


async def test_an_unknown_expert_or_silent_endpoint_is_rejected_early(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no expert 'c'; it has auto, a, b"):
        await collected(Endpoint(lambda body: stream("x")), tmp_path / "o.jsonl", experts=["c"])
    down = httpx.MockTransport(lambda request: httpx.Response(500))
    with pytest.raises(InputError, match="models does not respond"):
        await collect("http://test/v1", QUERIES, ["a"], tmp_path / "o.jsonl", transport=down)

    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize("held", ['{"some": "thing"}\n', "a thesis\nwithout its last newline", "one line"])
async def test_a_file_that_is_no_collection_is_left_as_it_was(tmp_path: Path, held: str) -> None:
    (tmp_path / "o.jsonl").write_text(held)
    with pytest.raises(InputError, match="is not a file with a collection"):
        await collected(Endpoint(lambda body: stream("x")), tmp_path / "o.jsonl")

    assert (tmp_path / "o.jsonl").read_text() == held


async def test_parquet_is_rejected_at_the_start(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda body: stream("x"))
    with pytest.raises(InputError, match=r"which Parquet cannot: name a \.jsonl file"):
        await collected(endpoint, tmp_path / "o.parquet")

    assert endpoint.headers == []
    assert not (tmp_path / "o.parquet").exists()


async def test_an_id_that_now_names_another_query_is_rejected(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    await collected(Endpoint(lambda body: stream("x")), out, experts=["a"])
    before, endpoint = out.read_bytes(), Endpoint(lambda body: stream("y"))
    other = [QUERIES[0], {**QUERIES[1], "query": "something else"}]
    with pytest.raises(InputError, match=r"'q1': there 'question 1', now 'something else'.*an id of its own"):
        await collected(endpoint, out, queries=other)

    assert (endpoint.asked, out.read_bytes()) == ([], before)


async def test_a_query_with_a_lone_surrogate_is_sent_and_then_known(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"query": "a\\ud800b"}\n')
    out, odd = tmp_path / "o.jsonl", read_queries(tmp_path / "q.jsonl")
    first = await collected(Endpoint(lambda body: stream("x")), out, queries=odd, experts=["a"])
    again = await collected(Endpoint(lambda body: stream("x")), out, queries=odd, experts=["a"])

    assert (first, again) == (Collected(1, 0, ()), Collected(0, 1, ()))


def test_queries_have_ids_of_their_own_or_get_some(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"query": "a"}\n{"query": "b", "query_id": "mine"}\n')

    assert [row["query_id"] for row in read_queries(file)] == ["q000001", "mine"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('{"question": "a"}\n', "row 1: query must be a text, found None"),
        ('{"query": "a", "query_id": "x"}\n{"query": "b", "query_id": "x"}\n', "'x' is duplicated"),
    ],
)
def test_invalid_queries_are_rejected(tmp_path: Path, lines: str, told: str) -> None:
    (tmp_path / "q.jsonl").write_text(lines)
    with pytest.raises(OutcomesError, match=told):
        read_queries(tmp_path / "q.jsonl")


SEPARATORS = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"


async def test_unicode_line_separators_stay_in_the_answer(tmp_path: Path) -> None:
    data = json.dumps({"choices": [{"delta": {"content": SEPARATORS}}]}, ensure_ascii=False).encode()

    class Bytewise(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for byte in b"data: " + data + b"\r\n\r\ndata: [DONE]\n\n":
                yield bytes([byte])

    headers = {"content-type": "text/event-stream"}
    endpoint = Endpoint(lambda body: httpx.Response(200, stream=Bytewise(), headers=headers))
    out = tmp_path / "o.jsonl"
    first = await collected(endpoint, out, queries=QUERIES[:1], experts=["a"])
    again = await collected(endpoint, out, queries=QUERIES[:1], experts=["a"])

    assert (first, again) == (Collected(1, 0, ()), Collected(0, 1, ()))
    assert [row["response"] for row in read_rows(out)] == [SEPARATORS]


async def test_odd_events_with_an_answer_are_read(tmp_path: Path) -> None:
    events = [
        {"choices": [{"delta": {"content": [{"type": "text", "text": "yes"}]}}], "error": None},
        {"choices": None, "usage": "7 tokens"},
        {"choices": [None, {"delta": "x"}], "usage": {"prompt_tokens": "7", "completion_tokens": 3}},
    ]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    endpoint = Endpoint(lambda body: sse(text))
    done = await collected(endpoint, tmp_path / "o.jsonl", queries=QUERIES[:1], experts=["a"])

    assert done == Collected(1, 0, ())
    (row,) = read_rows(tmp_path / "o.jsonl")
    assert (row["response"], row["prompt_tokens"], row["completion_tokens"]) == ("yes", None, 3)


async def test_a_list_of_models_with_odd_ids_is_read(tmp_path: Path) -> None:
    models = httpx.MockTransport(lambda request: httpx.Response(200, json={"data": [{"id": 7}]}))
    with pytest.raises(InputError, match="no expert 'a'; it has 7"):
        await collect("http://test/v1", QUERIES, ["a"], tmp_path / "o.jsonl", transport=models)


async def test_samples_and_log_probabilities_are_recorded(tmp_path: Path) -> None:
    bodies: list[dict[str, Any]] = []

    def answer(body: dict[str, Any]) -> httpx.Response:
        bodies.append(body)
        certain = {"content": [{"token": "x", "logprob": -0.25}, {"token": "y", "logprob": float("-1e400")}]}
        event = {"choices": [{"delta": {"content": "x"}, "logprobs": certain, "finish_reason": "stop"}]}
        return sse(f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n")

    out, endpoint = tmp_path / "o.jsonl", Endpoint(answer)
    wanted: dict[str, Any] = {"samples": 2, "temperature": 0.7, "logprobs": True}
    done = await collected(endpoint, out, queries=QUERIES[:1], **wanted)
    again = await collected(endpoint, out, queries=QUERIES[:1], **{**wanted, "samples": 3})

    assert (done.collected, again.collected, again.kept_from_before) == (4, 2, 4)
    assert all(body["logprobs"] is True for body in bodies)
    rows = read_rows(out)
    assert sorted((row["expert"], row["sample"]) for row in rows) == [(e, s) for e in "ab" for s in range(3)]
    assert all(row["token_logprobs"] == [-0.25] and row["finish_reason"] == "stop" for row in rows)


async def test_samples_need_a_temperature(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="temperature above 0"):
        await collected(Endpoint(lambda body: stream("a")), tmp_path / "o.jsonl", samples=2)
