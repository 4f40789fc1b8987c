"""What is seen of a request: metrics, money, the decision record, feedback, the trace, the log line."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from deployments.contracts.errors import BadRequest, ExpertUnavailable
from deployments.contracts.messages import PolicyView, RouterResponse, RouterState
from deployments.ingress.feedback import parse_rating
from deployments.limits.keys import KeyFile, KeyRing, new_key, write_keys
from deployments.observability import metrics
from deployments.observability.recent_answers import AnswerOrigin, RecentAnswers, origins_in_log
from deployments.observability.tracing import NoTracer, OtelTracer, tracer
from deployments.upstream.load import Begun
from router.core import Arm, ExpertLoad, Exploration, RouteRequest
from router.experts import Price
from router.learning.exploration import explored
from router.learning.record import Record, to_json
from tests.deployments.asgi_client import Exchange
from tests.deployments.fakes import EVENTS, FakeRouter, event
from tests.deployments.harness import CHAT, HELLO, NAMES, IngressHarness, settle
from tests.deployments.limits.test_key_limits import bearer, with_keys

PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class Kept:
    """A decision log in memory."""

    active = True

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def write(self, record: Record) -> None:
        self.records.append(orjson.loads(orjson.dumps(to_json(record, with_texts=True))))


def value(metric: Any, *labels: str) -> float:
    child = metric.labels(*labels) if labels else metric
    return float(sum(s.value for s in child._child_samples() if s.name in {"_total", "_count", ""}))


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def harness(kept: Kept) -> IngressHarness:
    return IngressHarness(records=kept)


async def test_a_routed_answer_is_counted_with_its_cost_and_what_it_saved(
    harness: IngressHarness, kept: Kept
) -> None:
    counters = (
        (metrics.requests, "chat", "200"),
        (metrics.decisions, "small", "routed"),
        (metrics.attempts, "small", "answered"),
        (metrics.tokens, "small", "prompt"),
        (metrics.tokens, "small", "completion"),
        (metrics.cost_usd, "small", "predicted"),
        (metrics.cost_usd, "small", "observed"),
        (metrics.cost_ratio, "small"),
        (metrics.baseline_usd, "most_expensive"),
        (metrics.key_cost_usd, "none"),
        *((metrics.stage_seconds, stage) for stage in ("parse", "admit", "route", "connect", "whole")),
        (metrics.expert_seconds, "small", "whole"),
    )
    before = [value(*counter) for counter in counters]
    response = await harness.ask(routing={"cost_weight": 0.5})
    after = [value(*counter) - was for counter, was in zip(counters, before, strict=True)]

    paid = 11 * 1e-6 + 2 * 2e-6
    assert after == pytest.approx([1, 1, 1, 11, 2, 1e-6, paid, 1, paid, paid, 1, 1, 1, 1, 1, 1])
    record = kept.records[0]
    assert record["request_id"] == response.headers["x-request-id"]
    assert {name: record[name] for name in ("expert", "reason", "outcome", "policy", "query")} == {
        "expert": "small",
        "reason": "routed",
        "outcome": "200",
        "policy": "0123456789ab",
        "query": "hello",
    }
    assert record["preferences"] == {"cost_weight": 0.5, "priority": "interactive"}
    assert record["scores"] == pytest.approx({"small": 0.9, "large": 0.8})
    assert (record["prompt_tokens"], record["completion_tokens"]) == (11, 2)
    assert (record["type"], record["schema_version"]) == ("decision", 1)


async def test_a_keys_savings_are_against_the_most_expensive_expert(tmp_path: Path) -> None:
    harness = IngressHarness()
    harness.api.registry.update_router(
        RouterState(
            PolicyView("0123456789ab", NAMES, NAMES, {}, {"small": Price(1, 2), "large": Price(10, 20)}), None
        )
    )
    key = with_keys(harness, tmp_path)
    name = key.split("-")[1]
    await harness.ask(bearer(key))

    cheap, dear = 11 * 1e-6 + 2 * 2e-6, 11 * 10e-6 + 2 * 20e-6
    assert value(metrics.key_cost_usd, name) == pytest.approx(cheap)
    assert value(metrics.key_saved_usd, name) == pytest.approx(dear - cheap)


async def test_each_end_of_a_request_is_counted_once(harness: IngressHarness, kept: Kept) -> None:
    ends = ("200", "400", "503", "broken", "disconnected")
    before = {end: value(metrics.requests, "chat", end) for end in ends}
    await harness.ask()
    await harness.ask(routing={"experts": []})
    harness.experts["small"].parts = [ExpertUnavailable("small", "gone")]
    await harness.ask(model="small")
    harness.experts["small"].parts = [event("small", "x"), ExpertUnavailable("small", "gone")]
    harness.experts["small"].headers = EVENTS
    await harness.ask(stream=True)
    harness.experts["small"].parts = [asyncio.Event().wait]
    exchange = Exchange(harness.app, CHAT, orjson.dumps(HELLO))
    await settle()
    await exchange.disconnect()

    assert {end: value(metrics.requests, "chat", end) - before[end] for end in ends} == dict.fromkeys(ends, 1)
    assert [record["outcome"] for record in kept.records] == ["200", "503", "broken", "disconnected"]


async def test_a_response_without_usage_is_estimated_and_marked(harness: IngressHarness, kept: Kept) -> None:
    before = value(metrics.usage_estimated, "small")
    parts = [event("small", "a"), event("small", "b"), event("small", "c"), b"data: [DONE]\n\n"]
    harness.experts["small"].parts, harness.experts["small"].headers = parts, EVENTS
    await harness.ask(stream=True)

    assert value(metrics.usage_estimated, "small") == before + 1
    assert kept.records[0]["usage_reported"] is False
    assert kept.records[0]["completion_tokens"] == 2


async def test_gauges_have_the_current_values(harness: IngressHarness) -> None:
    harness.experts["small"].parts = [asyncio.Event().wait]
    task = asyncio.create_task(harness.ask())
    await settle()
    text = (await harness.http.get("/metrics")).text
    task.cancel()

    assert "to_router_in_flight 1.0" in text
    assert 'to_router_expert_in_flight{expert="small"} 1.0' in text
    assert 'to_router_ready{part="large"} 1.0' in text
    assert 'to_router_limit{what="in_flight"} 1024.0' in text
    assert 'to_router_breaker_state{expert="small"} 0.0' in text
    assert 'to_router_policy_info{policy="0123456789ab"} 1.0' in text


@pytest.mark.parametrize(
    ("answer", "cause"), [(TimeoutError(), "timeout"), (ConnectionError("gone"), "no_replica")]
)
async def test_a_static_ranking_is_counted_by_its_cause(
    harness: IngressHarness, answer: Exception, cause: str
) -> None:
    before = value(metrics.static_rankings, cause)
    harness.router.answer = answer
    await harness.ask()

    assert value(metrics.static_rankings, cause) == before + 1


async def test_the_log_has_a_line_with_the_request_id_and_no_query_text(
    harness: IngressHarness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    response = await harness.ask(
        {"x-request-id": "mine"}, messages=[{"role": "user", "content": "a great secret"}]
    )
    lines = [record for record in caplog.records if record.getMessage() == "request ended"]

    assert [vars(line)["request_id"] for line in lines] == [response.headers["x-request-id"]]
    assert [vars(line)["client_request_id"] for line in lines] == ["mine"]
    assert (vars(lines[0])["expert"], vars(lines[0])["outcome"]) == ("small", "200")
    assert "secret" not in "".join(str(vars(record)) for record in caplog.records)


async def test_a_drawn_expert_is_named_and_its_probability_logged(
    harness: IngressHarness, kept: Kept
) -> None:
    decision = (await FakeRouter("small", "large").decide(RouteRequest("any"), 1.0)).decision
    assert decision is not None
    exploration = Exploration(1.0, quality_floor=0.0)
    unit = next(
        unit for unit in map(str, range(100)) if explored(exploration, unit, decision).ranking[0] == "large"
    )
    harness.router.answer = RouterResponse(explored(exploration, unit, decision))
    response = await harness.ask()

    assert (response.headers["x-router-reason"], response.headers["x-router-expert"]) == ("explored", "large")
    (record,) = kept.records
    assert (record["reason"], record["action"]) == ("explored", "large")
    assert record["propensities"] == {"small": 0.5, "large": 0.5}
    assert record["exploration"] == {"share": 1.0, "quality_floor": 0.0, "seed": 0, "unit": unit}
    assert record["policy"] == decision.policy_id


@pytest.mark.parametrize(
    ("body", "may_be_drawn"),
    [({}, True), ({"routing": {"explore": False}}, False), ({"model": "auto-cheap"}, False)],
)
async def test_only_plain_auto_may_be_drawn(
    harness: IngressHarness, body: dict[str, Any], may_be_drawn: bool
) -> None:
    response = await harness.ask(**body)

    (request,) = harness.router.asked
    assert request.explore == may_be_drawn
    assert request.unit == request.request_id == response.headers["x-request-id"]


# --- a canary's arms


class Measured:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.values: list[tuple[Arm, str, float]] = []

    def measured(self, arm: Arm, measure: str, value: float) -> None:
        self.values.append((arm, measure, value))

    def names(self) -> list[str]:
        return [measure for _, measure, _ in self.values]


async def with_canary(harness: IngressHarness) -> Arm:
    """The router decides for the arm `canary` from now on."""
    arm = Arm("c0", "canary")
    decision = (await FakeRouter("small", "large").decide(RouteRequest("any"), 1.0)).decision
    assert decision is not None
    harness.router.answer = RouterResponse(replace(decision, arm=arm))
    return arm


@pytest.fixture
def measured() -> Measured:
    return Measured()


@pytest.fixture
async def canary(kept: Kept, measured: Measured) -> IngressHarness:
    return IngressHarness(records=kept, arms=measured)


async def test_success_time_cost_and_ratings_are_measured_by_arm(
    canary: IngressHarness, kept: Kept, measured: Measured
) -> None:
    arm = await with_canary(canary)
    id_ = (await canary.ask()).headers["x-request-id"]
    for quality in (0.25, 0.25, 1.0):
        await rate(canary, request_id=id_, quality=quality)

    assert measured.names() == ["success", "latency_s", "cost_usd", "quality"]
    assert {found for found, _, _ in measured.values} == {arm}
    assert [value for _, measure, value in measured.values if measure in {"success", "quality"}] == [
        1.0,
        0.25,
    ]
    assert (kept.records[0]["arm"], kept.records[0]["canary"]) == ("canary", "c0")


async def test_failures_count_and_faults_of_clients_do_not(
    canary: IngressHarness, measured: Measured
) -> None:
    await with_canary(canary)
    canary.experts["small"].status = canary.experts["large"].status = 400
    bad = (await canary.ask()).status_code
    between = list(measured.values)
    canary.experts["small"].status = canary.experts["large"].status = 500
    failed = (await canary.ask()).status_code

    assert bad == 400
    assert between == []
    assert failed >= 500
    assert [(measure, value) for _, measure, value in measured.values if measure == "success"] == [
        ("success", 0.0)
    ]


async def test_without_a_canary_no_arm_is_measured(canary: IngressHarness, measured: Measured) -> None:
    id_ = (await canary.ask()).headers["x-request-id"]
    await rate(canary, request_id=id_, quality=1.0)

    assert measured.values == []


async def test_a_later_turn_has_the_unit_of_the_first(harness: IngressHarness, kept: Kept) -> None:
    turns = [{"role": "user", "content": "hi"}]
    first = (await harness.ask(messages=turns)).headers["x-request-id"]
    turns += [{"role": "assistant", "content": "hello"}, {"role": "user", "content": "and more?"}]
    await harness.ask(messages=turns)
    await harness.ask(
        messages=[*turns, {"role": "assistant", "content": "so"}, {"role": "user", "content": "x"}]
    )

    assert [request.unit for request in harness.router.asked] == [first] * 3
    assert [record["conversation"] for record in kept.records] == [None, first, first]


async def test_the_load_that_a_decision_saw_is_logged(harness: IngressHarness, kept: Kept) -> None:
    for expert in harness.api.registry.experts.values():
        for _ in range(20):
            expert.load.ended(Begun(10, 1, 0.0), 1.0, 10, 0.5)
    await harness.ask()
    await harness.ask(routing={"latency_weight": 0.01})

    without, loaded = (record["load"] for record in kept.records)
    assert without is None
    assert {name: ExpertLoad(**values) for name, values in loaded.items()} == harness.router.asked[-1].load
    assert set(loaded) == set(NAMES)


# --- feedback


async def rate(harness: IngressHarness, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return await harness.http.post("/v1/feedback", json=body, headers=headers)


async def test_a_rating_joins_its_decision(harness: IngressHarness, kept: Kept) -> None:
    id_ = (await harness.ask()).headers["x-request-id"]
    before = value(metrics.feedback_quality, "small")
    answer = await rate(harness, request_id=id_, quality=0.25, comment="meh")

    assert (answer.status_code, answer.content) == (204, b"")
    decision, rating = kept.records
    assert decision["request_id"] == rating["request_id"] == id_
    assert (rating["expert"], rating["quality"], rating["comment"]) == ("small", 0.25, "meh")
    assert value(metrics.feedback_quality, "small") == before + 1


async def test_a_repeated_rating_counts_once_and_another_replaces_it(
    harness: IngressHarness, kept: Kept
) -> None:
    id_ = (await harness.ask()).headers["x-request-id"]
    before = value(metrics.feedback_quality, "small")
    statuses = [
        (await rate(harness, request_id=id_, quality=quality)).status_code for quality in [1] * 20 + [0]
    ]

    assert set(statuses) == {204}
    assert [record["quality"] for record in kept.records if record["type"] == "feedback"] == [1, 0]
    assert value(metrics.feedback_quality, "small") == before + 1


async def test_a_clients_request_id_comes_back_and_is_never_ours(harness: IngressHarness, kept: Kept) -> None:
    theirs = {"x-request-id": "job-1"}
    responses = [await harness.ask(theirs), await harness.ask(theirs, model="none")]
    responses += [await harness.http.get("/v1/models", headers=theirs), await harness.ask(theirs)]

    assert {response.headers["x-client-request-id"] for response in responses} == {"job-1"}
    ours = [responses[index].headers["x-request-id"] for index in (0, 1, 3)]
    assert len({*ours, "job-1"}) == 4
    assert [record["request_id"] for record in kept.records] == [ours[0], ours[2]]
    assert {record["client_request_id"] for record in kept.records} == {"job-1"}
    assert (await rate(harness, request_id="job-1", quality=1)).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"request_id": "nobody", "quality": 1}, 404, "request_not_found"),
        ({"quality": 1}, 400, "invalid_type"),
        ({"request_id": "x"}, 400, "invalid_type"),
        ({"request_id": "x", "quality": 1.5}, 400, "invalid_value"),
        ({"request_id": "x", "quality": True}, 400, "invalid_type"),
        ({"request_id": "x", "quality": 1, "comment": 7}, 400, "invalid_type"),
        ({"request_id": "x", "quality": 1, "stars": 5}, 400, "unknown_field"),
    ],
)
async def test_a_bad_rating_is_rejected(
    harness: IngressHarness, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await rate(harness, **body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_rating_that_is_no_object_is_rejected() -> None:
    for raw in (b"", b"[]", b"{"):
        with pytest.raises(BadRequest):
            parse_rating(raw)


async def test_only_the_key_of_the_request_may_rate(harness: IngressHarness, tmp_path: Path) -> None:
    (mine, first), (other, second) = new_key("a"), new_key("b")
    write_keys(tmp_path / "keys.json", KeyFile(keys=[first, second]))
    ring = KeyRing(tmp_path / "keys.json")
    ring.refresh()
    harness.access.replace(ring, None)
    asked = await harness.ask({"authorization": f"Bearer {mine}"})
    rating = {"request_id": asked.headers["x-request-id"], "quality": 1}

    assert (await rate(harness, **rating)).status_code == 401
    assert (await rate(harness, {"authorization": f"Bearer {other}"}, **rating)).status_code == 404
    assert (await rate(harness, {"authorization": f"Bearer {mine}"}, **rating)).status_code == 204


@pytest.mark.parametrize(
    ("known", "status"),
    [((AnswerOrigin("large", "none"), True), 204), ((None, True), 404), ((None, False), 503)],
)
async def test_another_replica_may_have_answered(known: Any, status: int) -> None:
    async def ask_others(id_: str) -> Any:
        return known

    harness = IngressHarness(ask_others=ask_others)

    assert (await rate(harness, request_id="over there", quality=1)).status_code == status


def test_the_memory_is_bounded_and_restored_from_a_log(tmp_path: Path) -> None:
    memory = RecentAnswers(most=3)
    for number in range(5):
        memory.remember(str(number), AnswerOrigin("small", "none"))
    file = tmp_path / "decisions-1-r.jsonl"
    records = [{"type": "decision", "request_id": "old", "expert": "large", "key": "k"}, {"type": "feedback"}]
    file.write_bytes(b"\n".join(map(orjson.dumps, records)))
    memory.restore(origins_in_log([file]))

    assert len(memory) == 3
    assert memory.recall("0") is None
    assert memory.recall("old") is None  # what this replica answered itself is newer
    assert memory.recall("4") == AnswerOrigin("small", "none")
    roomy = RecentAnswers()
    roomy.restore(origins_in_log([file]))
    roomy.remember("new", AnswerOrigin("small", "none"))
    roomy.restore(origins_in_log([file]))
    assert (roomy.recall("old"), roomy.recall("new")) == (
        AnswerOrigin("large", "k"),
        AnswerOrigin("small", "none"),
    )


def test_the_plan_of_an_answer_is_restored_where_it_accepted(tmp_path: Path) -> None:
    file = tmp_path / "decisions-1-r.jsonl"
    plan = {"name": "check", "accepted": True, "result": "accepted", "p_right": 0.75}
    records = [
        {"type": "decision", "request_id": "yes", "expert": "small", "plan": plan},
        {"type": "decision", "request_id": "no", "expert": "large", "plan": {**plan, "accepted": False}},
    ]
    file.write_bytes(b"\n".join(map(orjson.dumps, records)))
    memory = RecentAnswers()
    memory.restore(origins_in_log([file]))

    assert memory.recall("yes") == AnswerOrigin("small", "none", "check", 0.75)
    assert memory.recall("no") == AnswerOrigin("large", "none")


def test_of_two_answers_under_one_id_the_later_is_remembered() -> None:
    memory = RecentAnswers(most=3)
    for number, expert in enumerate(("first", "second", "third", "fourth")):
        memory.remember("same" if number % 2 else str(number), AnswerOrigin(expert, "none"))

    assert memory.recall("same") == AnswerOrigin("fourth", "none")
    assert memory.recall("2") == AnswerOrigin("third", "none")


# --- traces


async def test_a_trace_goes_from_the_client_through_ingress_to_router_and_expert() -> None:
    exporter = InMemorySpanExporter()
    harness = IngressHarness(tracer=OtelTracer("to-router-ingress", SimpleSpanProcessor(exporter)))
    await harness.ask({"traceparent": PARENT, "tracestate": "a=b"})
    (span,) = exporter.get_finished_spans()

    assert f"{span.context.trace_id:032x}" == "a" * 32
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b" * 16
    handed = f"00-{'a' * 32}-{span.context.span_id:016x}-01"
    assert harness.router.traces[0]["traceparent"] == handed
    sent = harness.experts["small"].asked[0][2]
    assert (sent[b"traceparent"], sent[b"tracestate"]) == (handed.encode(), b"a=b")
    assert span.attributes is not None
    assert (span.attributes["to_router.expert"], span.attributes["to_router.outcome"]) == ("small", "200")


async def test_without_an_endpoint_the_clients_own_context_passes_through(
    harness: IngressHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    await harness.ask({"traceparent": PARENT})

    assert isinstance(tracer("x"), NoTracer)
    assert harness.experts["small"].asked[0][2][b"traceparent"] == PARENT.encode()


def test_an_endpoint_switches_traces_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    made = tracer("x")

    assert isinstance(made, OtelTracer)
    made.close()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert isinstance(tracer("x"), NoTracer)
