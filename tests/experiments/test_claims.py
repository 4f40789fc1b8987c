"""The three claims follow from the answers."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import pytest

from cluster.pocket.questions import Question, questions
from cluster.pocket.train_policy import CLAIMS
from experiments.claims import Client, main, measure
from experiments.claims_report import Result, Round, as_markdown, speedup, summarise

QUESTIONS = questions("heldout", n=9, seed=1)
AGAIN = {"auto": [30.0, 36.0], "generalist": [20.0, 21.176470588]}
SPECIALIST = {"arithmetic": "arithmetic", "words": "words", "atlas": "atlas"}


def result(question: Question, way: str) -> Result:
    """Specialists are right on their own task, the generalist on all except arithmetic."""
    expert = SPECIALIST[question.task] if way in ("auto", "random") else way
    right = expert == question.task or (expert == "generalist" and question.task != "arithmetic")
    return Result(question, expert, right, 10, 5, "routed" if way == "auto" else "named")


def test_quality_cost_and_speed_are_those_of_the_answers() -> None:
    ways = ("auto", *CLAIMS.experts, "random")
    seconds = {"auto": 1.0, "generalist": 1.5}
    measured = {
        way: [Round([result(question, way) for question in QUESTIONS], seconds.get(way, 2.0))] * 3
        for way in ways
    }
    figures = summarise(measured, AGAIN, {1: {"auto": [30.0, 33.0], "generalist": [20.0, 30.0]}})
    claims = figures["claims"]

    assert figures["n_questions"] == 3 * len(QUESTIONS)
    assert claims["more_queries_per_s_when_asked_again"] == pytest.approx(0.6)

    assert figures["best_single"] == "generalist"
    assert claims["quality_gain_over_best_single"] == pytest.approx(1 / 3)
    assert claims["cost_saved_against_generalist"] == pytest.approx(1 - 1.0 / 6.0)
    assert claims["more_queries_per_s_than_generalist"] == pytest.approx(0.5)
    assert claims["routed_to_a_right_expert_where_one_exists"] == 1
    assert figures["without_the_router"] == 0
    assert figures["queries_per_s_by_concurrency"][1]["more"] == pytest.approx((1.5 + 1.1) / 2 - 1)
    text = as_markdown({**figures, "concurrency": 1})
    assert "+33.3 points with `auto` against the best single expert (generalist)" in text
    assert "83.3% less than the generalist alone" in text
    assert "+50.0% queries per second" in text


def test_a_speedup_is_the_median_of_pairs() -> None:
    assert speedup({"auto": [2.0, 3.0, 40.0], "generalist": [1.0, 2.0, 10.0]}) == 1.0


class _Endpoint(BaseHTTPRequestHandler):
    """Returns the question as the answer; rejects one model."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: the second would wait for the first to be acknowledged

    def do_POST(self) -> None:
        request = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        rejected = request["model"] == "unknown"
        message = {"content": request["messages"][0]["content"]}
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        body = orjson.dumps({"choices": [{"message": message}], "usage": usage})
        self.send_response(503 if rejected else 200)
        self.send_header("x-router-expert", request["model"])
        self.send_header("x-router-reason", "named")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_each_question_gets_its_own_answer_back(endpoint: str) -> None:
    with Client(endpoint, 3) as client:
        answers = client.all(QUESTIONS, ["atlas"] * len(QUESTIONS)).answers

    assert [answer.question for answer in answers] == QUESTIONS
    assert {(answer.expert, answer.right, answer.prompt_tokens) for answer in answers} == {
        ("atlas", False, 7)
    }


def test_an_error_ends_the_measurement(endpoint: str) -> None:
    with Client(endpoint, 1) as client, pytest.raises(RuntimeError, match="unknown returned 503"):
        client.all(QUESTIONS, ["unknown"] * len(QUESTIONS))


def test_every_way_gets_each_rounds_own_questions(endpoint: str) -> None:
    measured = measure(endpoint, [QUESTIONS[:4], QUESTIONS[4:8]], concurrency=1)

    assert set(measured) == {"auto", *CLAIMS.experts, "random"}
    for rounds in measured.values():
        assert [[answer.question for answer in one.answers] for one in rounds] == [
            QUESTIONS[:4],
            QUESTIONS[4:8],
        ]


def test_too_many_questions_are_an_error_before_the_start(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--n", "1000", "--rounds", "5"])
    assert "--n 1000 in each of --rounds 5: split 'heldout' has no further" in capsys.readouterr().err
