"""Which experts are called, in which order, for how long, and the error when none responds."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import pytest

from deployments.config import IngressConfig
from deployments.contracts import sse
from deployments.contracts.call_order import CallOrder
from deployments.contracts.deadlines import Deadline
from deployments.contracts.errors import (
    ApiError,
    BadRequest,
    DeadlineExceeded,
    ExpertError,
    ExpertOverloaded,
    ExpertTimeout,
    ExpertUnavailable,
    ExpertUnreachable,
    NotFound,
    TooMany,
    Unavailable,
)
from deployments.contracts.heartbeats import Progress
from deployments.contracts.protocols import ResponseStream
from deployments.contracts.requests import InferenceRequest, parse
from deployments.upstream.attempts import OpenedResponse
from deployments.upstream.circuit_breaker import FAILURES_TO_OPEN
from deployments.upstream.dispatcher import Dispatcher
from deployments.upstream.latency import MIN_OBSERVATIONS
from deployments.upstream.registry import ExpertRegistry
from router.core import Decision
from tests.deployments.fakes import EVENTS, JSON, Clock, FakeExpert, answer, event

DONE = b"data: [DONE]\n\n"


def a_request(*, stream: bool = False, text: str = "hi", max_tokens: int | None = None) -> InferenceRequest:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], "stream": stream}
    body["max_tokens"] = max_tokens
    return parse("/v1/chat/completions", orjson.dumps(body), max_messages=8)


class Field:
    """Experts in a registry, and a dispatcher over them."""

    def __init__(
        self,
        *experts: FakeExpert,
        slots: int | None = None,
        max_queued: int = 4,
        cold: bool = False,
        elsewhere: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.clock = Clock() if clock is None else clock
        self.fakes = {expert.model: expert for expert in experts}
        config = IngressConfig.model_validate(
            {
                "experts": {
                    name: {
                        "url" if elsewhere else "app": f"http://{name}/v1" if elsewhere else name,
                        "max_in_flight": slots,
                    }
                    for name in self.fakes
                },
                "limits": {"max_queued": max_queued, "max_queue_wait_s": 60, "first_token_timeout_s": 120},
            }
        )
        self.registry = ExpertRegistry(config, lambda name, _: self.fakes[name], clock=self.clock)
        self.experts = self.registry.experts
        for expert in self.experts.values():
            expert.state.running = 0 if cold else 1
        self.dispatcher = Dispatcher(self.registry, clock=self.clock)

    async def open(
        self,
        *,
        stream: bool = False,
        text: str = "hi",
        max_tokens: int | None = None,
        fallback: bool = True,
        seconds: float = 30.0,
        **options: Any,
    ) -> OpenedResponse:
        ranking = tuple(self.fakes)
        order = CallOrder(ranking, "routed", fallback, Decision(ranking, {}, "0123456789ab"))
        deadline = Deadline(seconds, self.clock)
        request = a_request(stream=stream, text=text, max_tokens=max_tokens)
        return await self.dispatcher.open(request, order, (), deadline, **options)

    def held(self) -> Mapping[str, int]:
        return {name: expert.slots.held for name, expert in self.experts.items()}


def failing(name: str, error: Exception) -> FakeExpert:
    return FakeExpert(name, error)


async def test_a_slot_is_held_until_the_response_ends_not_at_failed_experts() -> None:
    field = Field(failing("a", ExpertUnavailable("a", "gone")), FakeExpert("b"))
    opened = await field.open()

    assert opened.expert == "b"
    assert [(attempt.expert, attempt.outcome) for attempt in opened.attempts] == [
        ("a", "unavailable"),
        ("b", "answered"),
    ]
    assert field.held() == {"a": 0, "b": 1}
    opened.slot.release()
    assert field.held() == {"a": 0, "b": 0}


@pytest.mark.parametrize(
    "first",
    [
        FakeExpert("a", b"<html>no</html>", b"more", headers=EVENTS),
        FakeExpert("a", b"data: {nope\n\n", DONE, headers=EVENTS),
        FakeExpert("a", b'data: {"error": {"message": "engine died"}}\n\n', DONE, headers=EVENTS),
        FakeExpert("a", b'data: {"error": {"message": "x", "code": 500}}\n\n', DONE, headers=EVENTS),
        FakeExpert("a", DONE, headers=EVENTS),
        FakeExpert("a", b"", ExpertUnavailable("a", "gone"), headers=EVENTS),
        FakeExpert("a", b"dat", headers=EVENTS),
        FakeExpert("a", b": comment\n\n", headers=EVENTS),
    ],
    ids=["html", "half JSON", "an error", "a 500", "nothing", "cut before", "ended early", "a comment only"],
)
async def test_a_stream_that_does_not_begin_well_is_answered_by_the_next(first: FakeExpert) -> None:
    first.parts = [*first.parts, b""] if len(first.parts) == 1 else first.parts
    field = Field(first, FakeExpert("b", event("b", "x"), DONE, headers=EVENTS))
    opened = await field.open(stream=True)

    assert opened.expert == "b"
    assert opened.stream.head.body == event("b", "x")


async def test_the_first_event_may_come_in_pieces_and_after_comments() -> None:
    whole = event("a", "x")
    field = Field(FakeExpert("a", b": ping\n\n", whole[:9], whole[9:], DONE, headers=EVENTS))
    opened = await field.open(stream=True)

    assert opened.stream.head.body == b": ping\n\n" + whole


@pytest.mark.parametrize("filler", [b"x", b": ping\n\n"])
async def test_a_long_first_event_is_searched_once(filler: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []

    def first_event(body: bytes) -> bytes | None:
        searched.append(len(body))
        return sse.first_event(body)

    monkeypatch.setattr("deployments.upstream.responses.first_event", first_event)
    start = [b": "] if filler == b"x" else []
    pieces = [*start, *[filler] * 2000, b"\n\n", event("a", "x")]
    opened = await Field(FakeExpert("a", *pieces, DONE, headers=EVENTS)).open(stream=True)

    assert opened.stream.head.body == b"".join(pieces)
    assert sum(searched) < 3 * len(opened.stream.head.body)


@pytest.mark.parametrize(
    ("status", "asked_next"),
    [(500, True), (502, True), (429, True), (503, True), (401, True), (403, True), (302, True), (408, True),
     (404, True), (413, True), (501, True), (402, True), (409, True), (425, True), (451, True), (529, True),
     (400, False), (422, False)],
)  # fmt: skip
async def test_which_errors_of_an_expert_are_tried_elsewhere(status: int, asked_next: bool) -> None:
    field = Field(FakeExpert("a", b'{"error": {"message": "no", "code": 1}}', status=status), FakeExpert("b"))
    if asked_next:
        assert (await field.open()).expert == "b"
    else:
        with pytest.raises(BadRequest, match="no"):
            await field.open()
    assert field.experts["a"].slots.held == 0


async def test_an_experts_404_is_the_clients_without_another_expert() -> None:
    field = Field(FakeExpert("a", b'{"error": {"message": "no such adapter"}}', status=404))

    with pytest.raises(NotFound, match="no such adapter"):
        await field.open(fallback=False)


@pytest.mark.parametrize(
    ("errors", "raised", "code"),
    [
        ([ExpertUnavailable("a", "x"), ExpertUnavailable("b", "x")], Unavailable, "expert_unavailable"),
        ([ExpertUnavailable("a", "x"), ExpertOverloaded("b", "x")], Unavailable, "expert_overloaded"),
        ([ExpertUnavailable("a", "x"), ExpertTimeout("b", "x")], DeadlineExceeded, "deadline_exceeded"),
    ],
)
async def test_when_all_fail_the_last_failure_gives_the_status(
    errors: Sequence[ExpertError], raised: type[ApiError], code: str
) -> None:
    field = Field(*(failing(error.expert, error) for error in errors))

    with pytest.raises(raised) as caught:
        await field.open()
    assert caught.value.code == code
    assert "Traceback" not in str(caught.value)


async def test_an_overloaded_experts_own_time_to_come_back_is_handed_on() -> None:
    headers = ((b"content-type", b"application/json"), (b"retry-after", b"17"))
    field = Field(FakeExpert("a", b"{}", status=429, headers=headers))

    with pytest.raises(Unavailable) as caught:
        await field.open()
    assert caught.value.retry_after_s == 17


@pytest.mark.parametrize("value", [b"9" * 400, b"-1", b"soon", b"\xb2", b""])
async def test_an_odd_retry_after_is_bounded_or_ignored(value: bytes) -> None:
    headers = (*JSON, (b"retry-after", value))
    field = Field(FakeExpert("a", b"{}", status=429, headers=headers))

    with pytest.raises(Unavailable) as caught:
        await field.open()
    assert 1 <= (caught.value.retry_after_s or 0) <= 3600


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (402, {"error": {"message": "pay", "code": "insufficient_quota"}}, "broken"),
        (400, {"error": {"message": "Your credit balance is too low to access the API."}}, "broken"),
        (409, {"error": None, "detail": "locked"}, "overloaded"),
        (529, {"type": "error", "error": {"type": "overloaded_error"}}, "overloaded"),
        (451, {}, "ineligible"),
        (400, {"error": {"message": "filtered", "code": "content_filter"}}, "ineligible"),
        (400, {"error": {"message": "rejected", "code": "content_policy_violation"}}, "ineligible"),
    ],
)
async def test_what_only_one_provider_rejects_is_tried_elsewhere(
    status: int, body: dict[str, Any], outcome: str
) -> None:
    field = Field(FakeExpert("a", orjson.dumps(body), status=status), FakeExpert("b"))
    opened = await field.open()

    assert [attempt.outcome for attempt in opened.attempts] == [outcome, "answered"]


async def test_content_that_all_providers_reject_is_the_clients_error() -> None:
    body = orjson.dumps({"error": {"message": "filtered", "code": "content_filter"}})
    field = Field(*(FakeExpert(name, body, status=400) for name in "abc"))
    for number in range(FAILURES_TO_OPEN):
        with pytest.raises(BadRequest, match="filtered") as caught:
            await field.open(text=str(number))
        assert caught.value.code == "content_policy_violation"

    assert {expert.breaker.state for expert in field.experts.values()} == {"closed"}


async def test_a_null_error_is_no_message() -> None:
    field = Field(FakeExpert("a", b'{"error": null}', status=400))

    with pytest.raises(BadRequest, match="rejected the request with status 400"):
        await field.open()


async def test_a_retrying_client_gets_fewer_attempts() -> None:
    field = Field(*(failing(name, ExpertUnavailable(name, "x")) for name in "abc"))

    with pytest.raises(Unavailable):
        await field.open(max_attempts=2)
    assert [len(expert.asked) for expert in field.fakes.values()] == [1, 1, 0]


async def test_a_request_that_kills_experts_meets_two_at_most() -> None:
    field = Field(*(failing(name, ExpertUnavailable(name, "died")) for name in "abcdefgh"))
    for _ in range(FAILURES_TO_OPEN + 1):
        asked = sum(len(expert.asked) for expert in field.fakes.values())
        with pytest.raises(Unavailable):
            await field.open(text="death")
        assert sum(len(expert.asked) for expert in field.fakes.values()) == asked + 2
    for expert in field.fakes.values():
        expert.parts = []

    assert {expert.breaker.state for expert in field.experts.values()} == {"closed"}
    assert (await field.open(text="another")).expert == "a"


async def test_a_hundred_killers_among_a_thousand_open_no_breaker() -> None:
    field = Field(*(FakeExpert(name) for name in "abcdefgh"))
    for number in range(1100):
        deadly = number % 11 == 0
        for name, expert in field.fakes.items():
            expert.parts = [ExpertUnavailable(name, "died")] if deadly else []
        if deadly:
            with pytest.raises(Unavailable):
                await field.open(text=str(number))
        else:
            opened = await field.open(text="ordinary")
            opened.slot.release()
            assert opened.expert == "a"

    assert {expert.breaker.state for expert in field.experts.values()} == {"closed"}


@pytest.mark.parametrize("error", [ExpertUnreachable, ExpertOverloaded])
async def test_experts_that_took_no_request_do_not_end_the_ranking(error: type[ExpertError]) -> None:
    field = Field(*(failing(name, error(name, "x")) for name in "abcd"), FakeExpert("e"))

    assert (await field.open()).expert == "e"


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "CUDA out of memory"}},
        {"error": "CUDA out of memory"},
        {"object": "error", "message": "CUDA out of memory", "code": 500},
        {"type": "error", "error": {"type": "api_error", "message": "x"}},
        {"output": [], "error": {"code": "server_error", "message": "x"}},
        {},
        {"id": "chatcmpl-1", "choices": None},
    ],
)
async def test_a_200_without_content_is_replaced_by_the_next(body: dict[str, Any]) -> None:
    field = Field(FakeExpert("a", orjson.dumps(body)), FakeExpert("b"))

    opened = await field.open()
    assert opened.expert == "b"
    assert opened.attempts[0].outcome == "broken"


@pytest.mark.parametrize(
    "content",
    [
        {"choices": []},
        {"data": []},
        {"output": [], "error": None},
        {"content": []},
        {"tokens": [], "count": 0},
    ],
)
async def test_content_that_is_empty_is_content(content: dict[str, Any]) -> None:
    field = Field(FakeExpert("a", orjson.dumps(content)), FakeExpert("b"))

    assert (await field.open()).expert == "a"


@pytest.mark.parametrize(
    "error",
    [
        {
            "error": {
                "message": "out of vocabulary",
                "type": "BadRequestError",
                "param": "logit_bias",
                "code": 400,
            }
        },
        {"error": {"message": "out of vocabulary", "param": "logit_bias", "code": "400"}},
        {"error": {"message": "out of vocabulary", "param": "logit_bias", "type": "invalid_request_error"}},
        {"object": "error", "message": "out of vocabulary", "param": "logit_bias", "code": 422},
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_bad_parameter_in_a_200_is_the_clients_error(error: dict[str, Any], stream: bool) -> None:
    data = orjson.dumps(error)
    parts = [b"data: " + data + b"\n\n", DONE] if stream else [data]
    field = Field(FakeExpert("a", *parts, headers=EVENTS if stream else JSON), FakeExpert("b"))
    for number in range(FAILURES_TO_OPEN):
        with pytest.raises(BadRequest, match="out of vocabulary") as caught:
            await field.open(stream=stream, text=str(number))
        assert caught.value.param == "logit_bias"

    assert field.fakes["b"].asked == []
    assert field.experts["a"].breaker.state == "closed"
    assert field.held() == {"a": 0, "b": 0}


@pytest.mark.parametrize(("code", "outcome"), [(404, "ineligible"), (429, "overloaded"), (401, "broken")])
async def test_other_errors_in_a_200_are_as_their_status(code: int, outcome: str) -> None:
    data = orjson.dumps({"error": {"message": "x", "code": code}})
    field = Field(FakeExpert("a", b"data: " + data + b"\n\n", DONE, headers=EVENTS), FakeExpert("b"))
    field.fakes["b"].parts = [event("b", "x"), DONE]
    opened = await field.open(stream=True)

    assert [attempt.outcome for attempt in opened.attempts] == [outcome, "answered"]


async def test_embeddings_as_bytes_pass_and_other_binaries_do_not() -> None:
    body = {"model": "auto", "input": "hi", "encoding_format": "bytes"}
    octets = ((b"content-type", b"application/octet-stream"),)
    field = Field(FakeExpert("a", b"\x00\xff", headers=octets), FakeExpert("b"))
    order = CallOrder(("a", "b"), "routed", True, Decision(("a", "b"), {}, "0123456789ab"))
    for path, expert in (("/v1/embeddings", "a"), ("/v1/responses", "b")):
        request = parse(path, orjson.dumps(body), max_messages=8)
        opened = await field.dispatcher.open(request, order, (), Deadline(30, field.clock))
        assert opened.expert == expert


async def test_an_expert_with_an_open_breaker_gets_no_call_and_retry_after() -> None:
    field = Field(failing("a", ExpertUnavailable("a", "x")))
    for number in range(FAILURES_TO_OPEN):
        with pytest.raises(Unavailable):
            await field.open(text=str(number))
    asked = len(field.fakes["a"].asked)

    with pytest.raises(Unavailable, match="circuit breaker") as caught:
        await field.open()
    assert len(field.fakes["a"].asked) == asked
    assert (caught.value.retry_after_s or 0) >= 1
    field.clock.now += 3
    field.fakes["a"].parts = []
    assert (await field.open()).expert == "a"


async def test_busy_is_not_broken() -> None:
    field = Field(failing("a", ExpertOverloaded("a", "full")), FakeExpert("b"))
    for _ in range(FAILURES_TO_OPEN + 1):
        await field.open()

    assert field.experts["a"].breaker.state == "closed"


async def test_a_clients_own_short_deadline_does_not_open_a_breaker() -> None:
    field = Field(failing("a", ExpertTimeout("a", "late")))
    for _ in range(FAILURES_TO_OPEN + 1):
        with pytest.raises(DeadlineExceeded):
            await field.open(seconds=0.001)

    assert field.experts["a"].breaker.state == "closed"


class Slow(FakeExpert):
    """An expert whose next response takes so many seconds, during which it may send heartbeats."""

    def __init__(self, name: str, clock: Clock, seconds: int, *, beats: bool) -> None:
        super().__init__(name)
        self.clock, self.seconds, self.beats = clock, seconds, beats
        self.each_second: Callable[[], None] = lambda: None

    async def open(self, *args: Any, **options: Any) -> ResponseStream:
        timeout_s, progress = args[4], args[6] or Progress(None, self.clock)
        limit_s = timeout_s if progress.limit_s is None else progress.limit_s
        for second in range(1, self.seconds + 1):
            self.clock.now += 1
            self.each_second()
            if self.beats:
                progress.note()
            if second >= timeout_s or progress.silent_s() >= limit_s:
                raise ExpertTimeout(self.model, "late")
        return await super().open(*args, **options)


def slow_experts(names: str, *, beats: bool, elsewhere: bool = False) -> Field:
    """Experts that usually respond in half a second, and now take a minute."""
    clock = Clock()
    experts = [Slow(name, clock, 60, beats=beats) for name in names]
    field = Field(*experts, clock=clock, elsewhere=elsewhere)
    for expert in field.experts.values():
        for _ in range(MIN_OBSERVATIONS):
            expert.latency.observe("non_streaming", 0.5, completion_tokens=10)
    return field


async def test_a_long_answer_is_waited_for_while_the_engine_works() -> None:
    field = slow_experts("abcd", beats=True)
    for number in range(FAILURES_TO_OPEN):
        opened = await field.open(seconds=600, text=str(number))
        assert [(attempt.expert, attempt.outcome) for attempt in opened.attempts] == [("a", "answered")]

    assert {expert.breaker.state for expert in field.experts.values()} == {"closed"}


async def test_an_engine_that_never_comes_to_a_request_gives_way() -> None:
    field = slow_experts("ab", beats=True)
    field.fakes["b"].seconds = 5  # type: ignore[attr-defined]

    opened = await field.open(seconds=60)

    assert [(attempt.expert, attempt.outcome) for attempt in opened.attempts] == [
        ("a", "timeout"), ("b", "answered"),
    ]  # fmt: skip
    assert field.experts["a"].breaker.state == "closed"


async def test_a_silent_engine_gives_way_and_opens_its_breaker() -> None:
    field = slow_experts("ab", beats=False)
    for number in range(FAILURES_TO_OPEN):
        assert (await field.open(seconds=600, text=str(number))).expert == "b"

    assert field.experts["a"].breaker.state != "closed"


async def test_a_deadline_during_progress_is_no_failure() -> None:
    field = slow_experts("ab", beats=True)
    for number in range(FAILURES_TO_OPEN):
        with pytest.raises(DeadlineExceeded):
            await field.open(seconds=40, text=str(number))

    assert field.experts["a"].breaker.state == "closed"


@pytest.mark.parametrize(("max_tokens", "outcome"), [(2000, "answered"), (10, "timeout"), (None, "answered")])
async def test_at_a_url_the_timeout_grows_with_max_tokens(max_tokens: int | None, outcome: str) -> None:
    field = slow_experts("abc", beats=False, elsewhere=True)
    opened = await field.open(seconds=600, max_tokens=max_tokens)

    assert opened.attempts[0].outcome == outcome


async def test_a_timeout_while_others_are_answered_is_no_failure() -> None:
    field = slow_experts("ab", beats=False)
    expert = field.experts["a"]
    field.fakes["a"].each_second = expert.breaker.record_success  # type: ignore[attr-defined]
    for number in range(FAILURES_TO_OPEN):
        assert (await field.open(seconds=600, text=str(number))).expert == "b"

    assert expert.breaker.state == "closed"


async def test_a_full_expert_gives_way_to_the_next() -> None:
    field = Field(FakeExpert("a"), FakeExpert("b"), slots=1)
    first, second = await field.open(), await field.open()

    assert (first.expert, second.expert) == ("a", "b")


async def test_when_all_are_full_the_first_free_slot_is_used() -> None:
    field = Field(FakeExpert("a"), FakeExpert("b"), slots=1)
    _, second = await field.open(), await field.open()
    third = asyncio.create_task(field.open())
    await asyncio.sleep(0)
    assert not third.done()
    second.slot.release()

    assert (await third).expert == "b"


async def test_a_request_waiting_for_an_expert_that_fails_waits_for_others() -> None:
    field = Field(failing("a", ExpertUnavailable("a", "gone")), FakeExpert("b"), slots=1)
    for expert in field.experts.values():
        await expert.slots.acquire("interactive", 1)
    asking = asyncio.create_task(field.open())
    await asyncio.sleep(0)
    field.experts["a"].slots.release()
    await asyncio.sleep(0)
    field.experts["b"].slots.release()
    opened = await asking

    assert [(a.expert, a.outcome) for a in opened.attempts] == [("a", "unavailable"), ("b", "answered")]
    assert field.held() == {"a": 0, "b": 1}


async def test_when_all_and_the_queue_are_full_the_error_comes_at_once() -> None:
    field = Field(FakeExpert("a"), slots=1, max_queued=0)
    await field.open()

    with pytest.raises(TooMany) as caught:
        await field.open()
    assert caught.value.code == "expert_overloaded"


async def test_a_client_that_leaves_during_a_call_frees_the_slot() -> None:
    waits = asyncio.Event()
    field = Field(FakeExpert("a", waits.wait))
    leaver = asyncio.create_task(field.open())
    await asyncio.sleep(0)
    assert field.held() == {"a": 1}
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)

    assert field.held() == {"a": 0}
    assert field.experts["a"].breaker.state == "closed"


async def test_an_expert_without_a_replica_that_does_not_come_up_in_time_is_503_starting() -> None:
    field = Field(failing("a", ExpertTimeout("a", "late")), cold=True)
    for _ in range(FAILURES_TO_OPEN + 1):
        with pytest.raises(Unavailable) as caught:
            await field.open()

    assert caught.value.code == "expert_starting"
    assert (caught.value.retry_after_s or 0) >= 1
    assert field.experts["a"].breaker.state == "closed"


async def test_an_answer_that_is_no_object_is_answered_by_the_next() -> None:
    field = Field(FakeExpert("a", b"[1]"), FakeExpert("b"))
    opened = await field.open()

    assert opened.stream.head.body == answer("b")


async def test_an_expert_that_failed_during_the_wait_gets_no_call() -> None:
    field = Field(FakeExpert("a"), FakeExpert("b"), slots=1)
    for expert in field.experts.values():
        await expert.slots.acquire("interactive", 1)
    waiting = asyncio.create_task(field.open())
    await asyncio.sleep(0)
    for _ in range(FAILURES_TO_OPEN):
        field.experts["a"].breaker.record_failure()
    field.experts["a"].slots.release()
    await asyncio.sleep(0)
    field.experts["b"].slots.release()
    opened = await waiting

    assert opened.expert == "b"
    assert field.fakes["a"].asked == []
    assert field.held() == {"a": 0, "b": 1}


async def test_a_deadline_that_passes_in_an_experts_queue_is_504() -> None:
    field = Field(FakeExpert("a"), slots=1)
    await field.experts["a"].slots.acquire("interactive", 1)
    waiting = asyncio.create_task(field.open(seconds=0.01))
    await asyncio.sleep(0)
    field.clock.now += 1.0

    with pytest.raises(DeadlineExceeded):
        await waiting
