"""The simulated expert has an engine's interface, its capacity is time, and it fails as configured."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from deployments.contracts.answers import StreamedAnswers, answers_of
from deployments.contracts.endpoints import ENDPOINTS
from deployments.contracts.messages import HEARTBEATS, Head
from deployments.simulated import sums
from deployments.simulated.args import Behaviour, Failure, SimulatedArgs
from deployments.simulated.deployment import SimulatedExpert
from router.answers import final_answer

CHAT = "/v1/chat/completions"


class Time:
    """Time that only passes by waiting; waits end in the order of their alarms."""

    def __init__(self) -> None:
        self.now = 100.0
        self._alarms: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> Awaitable[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._alarms.append((self.now + seconds, future))
        return future

    async def run(self, until: float) -> None:
        """Let time pass."""
        for _ in range(1000):
            for _ in range(20):
                await asyncio.sleep(0)
            self._alarms = [alarm for alarm in self._alarms if not alarm[1].done()]
            if not self._alarms or (first := min(self._alarms, key=lambda alarm: alarm[0]))[0] > until + 1e-9:
                break
            self.now = first[0]
            first[1].set_result(None)
        self.now = until


def expert(clock: Time | None = None, **behaviour: Any) -> SimulatedExpert:
    settings = Behaviour(**{"ttft_ms": 0, "tokens_per_s": None, "tokens": 4, **behaviour})
    args = SimulatedArgs(name="code", behaviour=settings, max_model_len=200)
    clock = clock or Time()
    return SimulatedExpert(args, clock=clock, wait=clock.sleep, die=lambda status: None)


def ask(simulated: SimulatedExpert, path: str = CHAT, **body: Any) -> AsyncGenerator[Head | bytes, None]:
    messages = {"messages": [{"role": "user", "content": "hello"}]}
    given = {"/v1/completions": {"prompt": "hello"}, "/v1/responses": {"input": "hello"}}.get(path, messages)
    return simulated.http("POST", path, (), orjson.dumps({"model": "code", **given, **body}))


async def read(answer: AsyncGenerator[Head | bytes, None]) -> tuple[Head, bytes]:
    parts = [part async for part in answer]
    head = parts[0]
    assert isinstance(head, Head)
    return head, head.body + b"".join(part for part in parts[1:] if isinstance(part, bytes))


def data_of(stream: bytes) -> list[Any]:
    lines = [line[6:] for line in stream.split(b"\n") if line.startswith(b"data: ")]
    return [orjson.loads(line) for line in lines if line != b"[DONE]"]


async def test_a_chat_answer_names_itself_as_simulated() -> None:
    head, body = await read(ask(expert()))

    answer = orjson.loads(body)
    assert head.status == 200
    assert head.complete
    assert answer["choices"][0]["message"]["content"] == "[simulated expert code] w1 w2 w3"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"])
async def test_the_streamed_text_is_the_complete_text(path: str) -> None:
    _, whole = await read(ask(expert(), path))
    _, stream = await read(ask(expert(), path, stream=True))

    pieces = []
    for event in data_of(stream):
        choice = (event.get("choices") or [{}])[0]
        delta = choice.get("delta", event.get("delta", choice.get("text", "")))
        pieces.append(delta if isinstance(delta, str) else delta.get("content", delta.get("text", "")) or "")
    assert "".join(pieces) == "[simulated expert code] w1 w2 w3"
    assert b"[simulated expert code] w1 w2 w3" in whole


async def test_max_tokens_cuts_the_answer() -> None:
    _, body = await read(ask(expert(), max_tokens=2))

    answer = orjson.loads(body)
    assert answer["choices"][0]["message"]["content"] == "[simulated expert code] w1"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("wanted", [True, False])
async def test_usage_is_streamed_only_on_request(wanted: bool) -> None:
    _, stream = await read(ask(expert(), stream=True, stream_options={"include_usage": wanted}))

    usages = [event["usage"] for event in data_of(stream) if event.get("usage")]
    assert [usage["completion_tokens"] for usage in usages] == [4] * wanted
    assert stream.endswith(b"data: [DONE]\n\n")


async def test_tokens_come_at_the_set_speed() -> None:
    time = Time()
    simulated = expert(time, ttft_ms=500, tokens_per_s=10)
    seen: list[float] = []

    async def watch() -> None:
        seen.extend([time.now async for _ in ask(simulated, stream=True)])

    task = asyncio.create_task(watch())
    await time.run(until=110.0)
    await task

    assert seen == pytest.approx([100.5, 100.6, 100.7, 100.8])


async def test_tokens_that_are_due_together_leave_together() -> None:
    parts = [part async for part in ask(expert(), stream=True)]

    assert len(parts) == 1


async def test_capacity_is_slots_over_service_time() -> None:
    time = Time()
    simulated = expert(time, ttft_ms=1000, slots=2)
    asked = [asyncio.create_task(read(ask(simulated))) for _ in range(10)]

    await time.run(until=103.5)

    assert sum(task.done() for task in asked) == 6
    counts = await simulated.counts()
    assert (counts["running"], counts["waiting"], counts["answered"]) == (2, 2, 6)
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_a_cancelled_request_frees_its_slot_and_is_counted() -> None:
    time = Time()
    simulated = expert(time, ttft_ms=1000, slots=1)
    first, second, third = (asyncio.create_task(read(ask(simulated))) for _ in range(3))
    await time.run(until=100.5)

    first.cancel()
    second.cancel()
    await time.run(until=101.6)

    assert third.done()
    counts = await simulated.counts()
    assert (counts["running"], counts["waiting"], counts["aborted"], counts["answered"]) == (0, 0, 2, 1)
    assert b'finished_reason="abort",model_name="code"} 2' in (await page(simulated, "/metrics"))


async def test_jitter_is_the_same_for_the_same_seed() -> None:
    async def durations() -> list[float]:
        time = Time()
        simulated = expert(time, ttft_ms=1000, jitter=0.5, slots=100)
        ended: list[float] = []

        async def one() -> None:
            await read(ask(simulated))
            ended.append(time.now)

        tasks = [asyncio.create_task(one()) for _ in range(20)]
        await time.run(until=110)
        await asyncio.gather(*tasks)
        return ended

    first, second = await durations(), await durations()

    assert first == second
    assert len(set(first)) == 20
    assert 100.5 <= min(first) < max(first) <= 101.5


async def page(simulated: SimulatedExpert, path: str) -> bytes:
    return (await read(simulated.http("GET", path, (), b"")))[1]


async def test_the_pages_of_vllm_are_there() -> None:
    simulated = expert()

    models = orjson.loads(await page(simulated, "/v1/models"))
    health, _ = await read(simulated.http("GET", "/health", (), b""))
    metrics = await page(simulated, "/metrics")
    nothing, _ = await read(simulated.http("GET", "/sleep", (), b""))

    assert models["data"][0]["id"] == "code"
    assert models["data"][0]["max_model_len"] == 200
    assert health.status == 200
    assert b'vllm:num_requests_running{engine="0",model_name="code"} 0' in metrics
    assert nothing.status == 404


async def test_a_request_that_is_too_long_is_rejected_in_vllms_words() -> None:
    head, body = await read(ask(expert(), max_tokens=500))

    assert head.status == 400
    assert "maximum context length is 200 tokens" in orjson.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    ("failure", "status", "expected"),
    [
        ({"mode": "status", "status": 429}, 429, b"simulated failure of code"),
        ({"mode": "status", "status": 503}, 503, b"simulated failure of code"),
        ({"mode": "garbage"}, 200, b"not an answer of any API"),
    ],
)
async def test_it_fails_with_the_set_status_or_garbage(
    failure: dict[str, Any], status: int, expected: bytes
) -> None:
    head, body = await read(ask(expert(failures=[failure]), stream=True))

    assert head.status == status
    assert expected in body


async def test_half_a_stream_has_no_end() -> None:
    _, body = await read(ask(expert(failures=[{"mode": "half_stream", "after_tokens": 2}]), stream=True))

    assert "w1" in body.decode()
    assert b"w2" not in body
    assert b"[DONE]" not in body


async def test_half_an_answer_is_no_json() -> None:
    _, body = await read(ask(expert(failures=[{"mode": "half_stream"}])))

    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(body)


async def test_a_raise_comes_before_the_first_byte() -> None:
    with pytest.raises(RuntimeError, match="simulated failure"):
        await read(ask(expert(failures=[{"mode": "raise"}])))


@pytest.mark.parametrize("mode", ["hang", "stall"])
async def test_a_hanging_expert_holds_its_slot_until_the_client_leaves(mode: str) -> None:
    time = Time()
    simulated = expert(time, failures=[{"mode": mode, "after_tokens": 1}])
    task = asyncio.create_task(read(ask(simulated, stream=True)))
    await time.run(until=1000)

    assert not task.done()
    assert (await simulated.counts())["running"] == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await simulated.counts())["running"] == 0


async def test_it_ends_its_process_as_configured() -> None:
    died: list[int] = []
    args = SimulatedArgs(name="code", behaviour=Behaviour(failures=[Failure(mode="die")], ttft_ms=0))
    await read(ask(SimulatedExpert(args, die=died.append), max_tokens=1))

    assert died == [1]


async def test_a_rate_is_kept_and_the_draws_are_seeded() -> None:
    async def failed() -> list[bool]:
        simulated = expert(failures=[{"mode": "status", "rate": 0.25}])
        return [(await read(ask(simulated)))[0].status == 500 for _ in range(400)]

    first, second = await failed(), await failed()

    assert first == second
    assert 70 <= sum(first) <= 130


async def test_a_request_may_steer_one_expert_by_its_name() -> None:
    simulated = expert()

    steered, _ = await read(ask(simulated, simulate={"code": {"failures": [{"mode": "status"}]}}))
    other, _ = await read(ask(simulated, simulate={"law": {"failures": [{"mode": "status"}]}}))
    all_of_them, _ = await read(ask(simulated, simulate={"*": {"failures": [{"mode": "status"}]}}))
    wrong, body = await read(ask(simulated, simulate={"code": {"speed": 1}}))

    assert [steered.status, other.status, all_of_them.status] == [500, 200, 500]
    assert wrong.status == 400
    assert b"simulate.speed: unknown key" in body


async def test_behaviour_changes_while_it_runs() -> None:
    simulated = expert()

    await simulated.reconfigure({"text": "other words", "ttft_ms": 0, "tokens_per_s": None})
    _, by_config = await read(ask(simulated))
    await simulated.behave({"text": "and others"})
    _, by_call = await read(ask(simulated))
    await simulated.reconfigure({"slots": 0})
    _, kept = await read(ask(simulated))

    assert b"[simulated expert code] other words" in by_config
    assert b"[simulated expert code] and others" in by_call
    assert b"[simulated expert code] and others" in kept


async def test_an_echo_gives_back_the_query() -> None:
    _, body = await read(ask(expert(echo=True), messages=[{"role": "user", "content": "marker 77"}]))

    assert "[simulated expert code] marker 77" in orjson.loads(body)["choices"][0]["message"]["content"]


SUM = [{"role": "user", "content": "What is 17 + 25?"}]


@pytest.mark.parametrize("right", [0.0, 1.0])
async def test_a_sum_has_a_known_final_answer(right: float) -> None:
    _, body = await read(ask(expert(sums=right), messages=SUM))
    _, again = await read(ask(expert(sums=right), messages=SUM))

    text = orjson.loads(body)["choices"][0]["message"]["content"]
    assert text.startswith("[simulated expert code] The answer is ")
    assert (final_answer(text) == "42") is (right == 1.0)
    assert orjson.loads(again)["choices"] == orjson.loads(body)["choices"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_log_probabilities_come_only_on_request(path: str, stream: bool) -> None:
    prompt = {"messages": SUM} if path == CHAT else {"prompt": "17 + 25"}
    _, without = await read(ask(expert(sums=0.5), path, stream=stream, **prompt))
    _, body = await read(ask(expert(sums=0.5), path, stream=stream, logprobs=path == CHAT or 0, **prompt))

    endpoint = ENDPOINTS[path]
    if stream:
        reader = StreamedAnswers(endpoint)
        reader.saw(body)
        answers = reader.answers
    else:
        answers = answers_of(body, endpoint)
    query = "What is 17 + 25?" if path == CHAT else "17 + 25"
    assert tuple(answers[0].logprobs) == sums.answer("code", query, 0.5).logprobs
    assert b"token_logprobs" not in without
    assert b'"logprob"' not in without


@pytest.mark.parametrize("stream", [False, True])
async def test_several_samples_are_choices_of_one_response(stream: bool) -> None:
    options = {"include_usage": True}
    _, body = await read(ask(expert(sums=0.5), messages=SUM, n=3, stream=stream, stream_options=options))

    if stream:
        reader = StreamedAnswers(ENDPOINTS[CHAT])
        reader.saw(body)
        answers, usage = reader.answers, data_of(body)[-1]["usage"]
    else:
        answers, usage = answers_of(body, ENDPOINTS[CHAT]), orjson.loads(body)["usage"]
    expected = [sums.answer("code", "What is 17 + 25?", 0.5, sample).text for sample in range(3)]
    assert [answers[index].text for index in range(3)] == expected
    assert {answer.finish_reason for answer in answers.values()} == {"stop"}
    assert usage["completion_tokens"] == 15


async def test_a_sum_is_answered_at_the_set_length() -> None:
    _, body = await read(ask(expert(sums=1.0, tokens=32), messages=SUM, max_tokens=100))

    answer = orjson.loads(body)
    assert answer["usage"]["completion_tokens"] == 32
    assert final_answer(answer["choices"][0]["message"]["content"]) == "42"


def test_right_answers_are_more_certain_and_as_many_as_set() -> None:
    drawn = [sums.answer("code", f"{n} + 1", 0.7) for n in range(400)]
    right = [final_answer(answer.text) == str(n + 1) for n, answer in enumerate(drawn)]
    certainty = [sum(answer.logprobs) for answer in drawn]

    assert 0.6 <= sum(right) / 400 <= 0.8
    assert min(c for c, is_right in zip(certainty, right, strict=True) if is_right) < max(
        c for c, is_right in zip(certainty, right, strict=True) if not is_right
    )


async def test_embeddings_are_the_same_for_the_same_text() -> None:
    _, first = await read(ask(expert(), "/v1/embeddings", input=["a", "b"]))
    _, second = await read(ask(expert(), "/v1/embeddings", input=["a", "b"]))

    assert first == second
    assert len(orjson.loads(first)["data"]) == 2


def test_rates_of_failures_add_up_to_one_at_most() -> None:
    with pytest.raises(ValidationError, match=r"add up to 1\.2"):
        Behaviour(failures=[Failure(mode="hang", rate=0.6), Failure(mode="raise", rate=0.6)])


def test_it_loads_neither_vllm_nor_ray_nor_torch() -> None:
    heavy = ("vllm", "ray", "torch", "openvino")
    code = f"import sys, deployments.simulated.deployment; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


async def test_steps_advance_while_a_request_is_worked_at_and_not_while_it_hangs() -> None:
    clock = Time()
    simulated = expert(clock, ttft_ms=1000)
    hanging = asyncio.create_task(read(ask(simulated, simulate={"code": {"failures": [{"mode": "hang"}]}})))
    await clock.run(until=100.5)
    idle = [simulated._engine.steps() for _ in range(3)]
    working = asyncio.create_task(read(ask(simulated)))
    await clock.run(until=101.0)
    busy = [simulated._engine.steps() for _ in range(3)]
    await clock.run(until=103.0)

    assert len(set(idle)) == 1
    assert len(set(busy)) == 3
    assert working.done()
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)


async def test_a_caller_that_wants_heartbeats_gets_the_same_response() -> None:
    body = orjson.dumps({"model": "code", "messages": [{"role": "user", "content": "hello"}]})
    head, _ = await read(expert().http("POST", CHAT, (HEARTBEATS,), body))

    assert head.status == 200
    assert head.complete
