"""Judging a log: a uniform sample within a budget, resumed after a failure, and deleted with the log."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.errors import InputError
from router.experts import Price
from router.learning.judging import SAMPLE, Judged, Sample, judge_log, sample
from router.learning.log import WORK, delete_records, read_folders
from router.learning.record import DecisionRecord, JudgementRecord, to_json
from router.learning.references import NO_REFERENCES, References

PRICES = {"small": Price(1.0, 1.0), "large": Price(2.0, 2.0), "judge": Price(1.0, 1.0)}


def decision(number: int, **fields: Any) -> DecisionRecord:
    expert = "small" if number % 2 else "large"
    known: dict[str, Any] = {
        "query": f"query {number}",
        "expert": expert,
        "outcome": "200",
        "prompt_tokens": 10,
        "propensities": {"small": 0.5, "large": 0.5},
        "action": expert,
    }
    return DecisionRecord(request_id=f"req-{number}", **{**known, **fields})


DECISIONS = [decision(number) for number in range(200)]


def drawn(rate: float = 0.1, budget_usd: float | None = None, **fields: Any) -> Sample:
    how: dict[str, Any] = {"prices": PRICES, "judge": "judge", "max_tokens": 20, **fields}
    return sample(DECISIONS, rate=rate, budget_usd=budget_usd, **how)


def test_a_larger_sample_extends_a_smaller_one() -> None:
    small, large = drawn(0.1), drawn(0.3)

    assert (len(small.requests), small.rate) == (20, 0.1)
    assert large.requests[:20] == small.requests
    assert {one.expert for one in large.requests} == {"small", "large"}


def test_a_budget_shortens_the_sample_and_keeps_its_order() -> None:
    whole = drawn(0.5)
    assert whole.at_most_usd is not None
    half = drawn(0.5, budget_usd=whole.at_most_usd / 2)

    assert 40 < len(half.requests) < 60
    assert half.requests == whole.requests[: len(half.requests)]
    assert half.rate == len(half.requests) / 200
    assert half.at_most_usd is not None
    assert half.at_most_usd <= whole.at_most_usd / 2


def test_what_cannot_be_judged_or_paid_is_an_error() -> None:
    with pytest.raises(InputError, match="no judgement fits"):
        drawn(budget_usd=0.0)
    with pytest.raises(InputError, match="prices of judge"):
        drawn(budget_usd=1.0, prices={name: PRICES[name] for name in ("small", "large")})
    with pytest.raises(InputError, match=r"log\.queries"):
        sample([decision(1, query=None)], rate=1.0, budget_usd=None, prices={}, judge="judge", max_tokens=1)


def test_only_responses_of_drawable_requests_are_judged() -> None:
    others = [
        decision(1, outcome="500"),
        decision(2, propensities=None),
        decision(3, expert=None),
        decision(4),
    ]
    found = sample(others, rate=1.0, budget_usd=None, prices={}, judge="judge", max_tokens=1)

    assert [one.request_id for one in found.requests] == ["req-4"]
    assert found.at_most_usd is None


REFERENCES = References.of(
    [
        {"query": f"Query  {number}", "reference": "an answer" if number % 4 else "another one"}
        for number in range(0, 200, 2)
    ],
    "queries",
)
"""Of every second query; a quarter of the endpoint's answers differs from its reference."""


def test_without_a_judge_only_queries_with_a_reference_are_drawn() -> None:
    found = drawn(1.0, judge=None, references=REFERENCES)
    both = drawn(1.0, references=REFERENCES)

    assert {one.request_id for one in found.requests} == {f"req-{number}" for number in range(0, 200, 2)}
    assert (found.rate, len(both.requests)) == (1.0, 200)
    assert found.at_most_usd is not None
    assert both.at_most_usd is not None
    assert found.at_most_usd < both.at_most_usd
    with pytest.raises(InputError, match="name a judge"):
        drawn(judge=None)


class Endpoint:
    """Experts that repeat the query's number, and a judge that gives the grade 7; counts its calls."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.calls: dict[str, int] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/models"):
            return httpx.Response(200, json={"data": [{"id": name} for name in PRICES]})
        body = json.loads(request.content)
        model = body["model"]
        self.calls[model] = self.calls.get(model, 0) + 1
        if model == "judge":
            if self.broken:
                return httpx.Response(400, json={"error": {"message": "no"}})
            message = {"role": "assistant", "content": "Fine. [[7]]"}
            return httpx.Response(
                200, json={"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
            )
        delta = {"role": "assistant", "content": "an answer"}
        events = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
        ]
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})


async def no_sleep(seconds: float) -> None:
    """Return at once."""


def judge(
    folder: Path,
    endpoint: Endpoint,
    rate: float = 0.1,
    *,
    references: References = NO_REFERENCES,
    name: str | None = "judge",
) -> Judged:
    return judge_log(
        drawn(rate, judge=name, references=references),
        folder,
        endpoint="http://judge/v1",
        judge=name,
        max_tokens=20,
        references=references,
        transport=httpx.MockTransport(endpoint),
        sleep=no_sleep,
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    lines = [json.dumps(to_json(one, with_texts=True), default=dict) for one in DECISIONS]
    (tmp_path / "decisions-1.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def judgements(log: Path) -> list[JudgementRecord]:
    return [one for one in read_folders([log]) if isinstance(one, JudgementRecord)]


def test_a_sample_is_judged_into_the_log(log: Path) -> None:
    found = judge(log, Endpoint())

    assert found.failed == ()
    assert judgements(log) == list(found.judgements)
    assert {(one.quality, one.judge, one.sampling_rate) for one in found.judgements} == {(0.7, "judge", 0.1)}
    experts = {one.request_id: one.expert for one in DECISIONS}
    assert all(one.expert == experts[one.request_id] for one in found.judgements)


def test_a_failed_run_goes_on_where_it_stopped(log: Path) -> None:
    with pytest.raises(InputError):
        judge(log, Endpoint(broken=True))
    endpoint = Endpoint()
    found = judge(log, endpoint)

    assert len(found.judgements) == 20
    assert endpoint.calls == {"judge": 20}  # no expert was called again


def test_a_larger_sample_replaces_the_rate_of_all(log: Path) -> None:
    judge(log, Endpoint(), 0.1)
    endpoint = Endpoint()
    judge(log, endpoint, 0.2)

    assert {one.sampling_rate for one in judgements(log)} == {0.2}
    assert (len(judgements(log)), endpoint.calls["judge"]) == (40, 20)


def test_a_reference_replaces_the_judge(log: Path) -> None:
    endpoint = Endpoint()
    judge(log, endpoint, 1.0, references=REFERENCES)

    found = {one.request_id: one for one in judgements(log)}
    assert len(found) == 200
    assert endpoint.calls["judge"] == 100
    for number in range(200):
        one = found[f"req-{number}"]
        wanted = (0.7, "judge") if number % 2 else (float(number % 4 != 0), "contains")
        assert (one.quality, one.judge) == wanted


def test_references_alone_need_no_judge(log: Path) -> None:
    endpoint = Endpoint()
    judge(log, endpoint, 0.5, references=REFERENCES, name=None)

    assert "judge" not in endpoint.calls
    assert {(one.judge, one.sampling_rate) for one in judgements(log)} == {("contains", 0.5)}
    assert len(judgements(log)) == 50


def test_a_later_run_replaces_checks_and_grades(log: Path) -> None:
    judge(log, Endpoint(), 1.0, references=REFERENCES, name=None)
    judge(log, Endpoint(), 0.1, references=REFERENCES)

    assert {(one.judge, one.sampling_rate) for one in judgements(log)} == {("contains", 0.1), ("judge", 0.1)}


HOW: list[dict[str, Any]] = [
    {},
    {"references": REFERENCES},
    {"references": REFERENCES, "name": None},
]


@pytest.mark.parametrize("earlier", HOW)
@pytest.mark.parametrize("later", HOW)
def test_all_judgements_of_a_log_are_of_one_sample(
    log: Path, earlier: dict[str, Any], later: dict[str, Any]
) -> None:
    (log / "judgements-0.5.jsonl").write_text("")  # as earlier versions called it
    judge(log, Endpoint(), 0.5, **earlier)
    found = judge(log, Endpoint(), 0.1, **later)

    assert judgements(log) == list(found.judgements)
    assert {one.sampling_rate for one in judgements(log)} == {0.1}
    assert [file.name for file in log.glob("judgements-*")] == [SAMPLE]


def test_deletion_takes_judgements_and_what_judging_kept(log: Path) -> None:
    first = judge(log, Endpoint()).judgements[0].request_id
    delete_records(log, request_id=first)

    assert first not in {one.request_id for one in judgements(log)}
    assert not (log / WORK).exists()
