"""Held-out queries through the real application: routed by meaning, answered correctly."""

import httpx
import openai
import pytest

from cluster.pocket.open_questions import LONG_TEXTS, open_questions
from cluster.pocket.questions import Question, questions
from cluster.pocket.train_policy import DEFAULT
from tests.e2e.conftest import Application

pytestmark = pytest.mark.e2e

HELD_OUT = questions("heldout", n=90, seed=11)
EXPERTS = DEFAULT.experts
SPECIALISTS = EXPERTS[:3]


def answer_of(client: openai.OpenAI, model: str, query: str, **options: object) -> tuple[str, str]:
    """An answer, and the expert that gave it."""
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": query}],
        max_tokens=16,
        temperature=0,
        **options,  # type: ignore[arg-type]
    )
    completion = raw.parse()
    return (completion.choices[0].message.content or "").strip(), raw.headers["x-router-expert"]


def test_held_out_queries_go_to_an_expert_that_answers_right(client: openai.OpenAI) -> None:
    answerable, right = [], []
    for question in HELD_OUT:
        alone = {expert: answer_of(client, expert, question.query)[0] for expert in SPECIALISTS}
        if question.reference in alone.values():
            answerable.append(question)
            answer, expert = answer_of(client, "auto", question.query)
            assert answer == alone.get(expert, answer)
            right.append(answer == question.reference)

    assert len(answerable) >= 0.9 * len(HELD_OUT)
    assert sum(right) >= 0.95 * len(right)


@pytest.mark.parametrize("task", ["arithmetic", "words", "atlas"])
def test_each_kind_of_query_goes_to_its_expert(client: openai.OpenAI, task: str) -> None:
    chosen = [question for question in HELD_OUT if question.task == task][:20]
    experts = [answer_of(client, "auto", question.query)[1] for question in chosen]

    assert experts.count(task) >= 0.95 * len(chosen)


@pytest.mark.parametrize("kind", ["small talk", "code", "other languages"])
def test_an_open_query_goes_to_chat_which_answers(client: openai.OpenAI, kind: str) -> None:
    question = next(question for question in open_questions("heldout") if question.kind == kind)
    answer, expert = answer_of(client, "auto", question.query)

    assert expert == "chat"
    assert answer


def test_a_text_longer_than_the_specialists_context_is_answered(client: openai.OpenAI) -> None:
    text = next(question.query for question in open_questions("heldout") if question.kind == LONG_TEXTS)
    answer, expert = answer_of(client, "auto", text, extra_body={"routing": {"cost_weight": 1e6}})

    assert expert == "chat"
    assert answer


def test_a_stream_holds_the_same_answer_as_a_plain_response(client: openai.OpenAI) -> None:
    question = HELD_OUT[0]
    whole, _ = answer_of(client, "auto", question.query)
    stream = client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": question.query}],
        max_tokens=16,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)

    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).strip() == whole
    assert chunks[-1].usage is not None


def test_the_answer_names_expert_policy_score_and_cost(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": "What is 20 + 22?"}], max_tokens=16
    )

    assert raw.headers["x-router-expert"] == raw.parse().model
    assert len(raw.headers["x-router-policy"]) == 12
    assert 0 <= float(raw.headers["x-router-score"]) <= 1
    assert float(raw.headers["x-router-cost-usd"]) > 0
    assert raw.headers["x-router-attempts"] == "1"
    assert raw.headers["x-router-reason"] == "routed"
    assert raw.headers["x-request-id"]
    assert "," not in raw.headers["x-request-id"]


def test_a_named_expert_skips_the_router(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="words", messages=[{"role": "user", "content": "What is 20 + 22?"}], max_tokens=16
    )

    assert raw.parse().model == "words"
    assert raw.headers["x-router-reason"] == "named"
    assert not {"x-router-policy", "x-router-score", "x-router-cost-usd"} & raw.headers.keys()


@pytest.mark.parametrize("question", HELD_OUT[:12], ids=lambda question: question.kind)
def test_route_previews_what_the_same_request_then_does(application: Application, question: Question) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": question.query}], "max_tokens": 16}
    with httpx.Client(base_url=application.url, timeout=60) as http:
        preview = http.post("/v1/route", json=body).json()
        done = http.post("/v1/chat/completions", json=body)

    assert preview["expert"] == done.headers["x-router-expert"] == done.json()["model"]
    assert preview["policy"] == done.headers["x-router-policy"]
    assert preview["ranking"][0] == preview["expert"]
    assert preview["reason"] == "routed"
    assert set(preview["experts"]) == set(EXPERTS)


def test_preferences_and_presets_move_the_choice(client: openai.OpenAI, application: Application) -> None:
    query = HELD_OUT[0].query
    _, chat = answer_of(client, "auto", query, extra_body={"routing": {"experts": ["chat"]}})
    _, without = answer_of(client, "auto-best", "hello", extra_body={"routing": {"exclude": ["chat"]}})
    with httpx.Client(base_url=application.url, timeout=60) as http:
        body = {
            "model": "auto",
            "messages": [{"role": "user", "content": query}],
            "routing": {"cost_weight": 1e6},
        }
        cheapest = http.post("/v1/route", json=body).json()

    costs = {name: expert["cost_usd"] for name, expert in cheapest["experts"].items()}
    assert chat == "chat"
    assert without != "chat"
    assert costs[cheapest["expert"]] == min(costs.values())


def test_models_lists_auto_then_presets_then_experts(client: openai.OpenAI) -> None:
    cards = list(client.models.list())

    assert [card.id for card in cards] == ["auto", "auto-cheap", "auto-best", *EXPERTS]
    windows = {card.id: card.max_model_len for card in cards}  # type: ignore[attr-defined]
    assert windows == {**dict.fromkeys(windows, 2048), **dict.fromkeys(SPECIALISTS, 512)}
    assert client.models.retrieve("words").id == "words"


def test_health_ready_and_metrics_answer(application: Application) -> None:
    with httpx.Client(base_url=application.url, timeout=60) as http:
        assert http.get("/health").status_code == 200
        ready = http.get("/ready")
        metrics = http.get("/metrics").text

    assert ready.status_code == 200
    assert ready.json()["ready"] is True
    assert {"router", *EXPERTS} <= ready.json()["parts"].keys()
    assert "to_router_decisions_total" in metrics
