"""`to-router start` writes a policy without a network."""

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from router.cli import main
from router.data.outcomes import read_outcomes, write_rows
from router.policy import Policy
from tests.router.data_sets import rows

EXPERTS = """
experts:
  - {name: llama, model: meta-llama/Llama-3.1-8B-Instruct, price_per_mtok: {input: 0.05, output: 0.08}}
  - {name: qwen, model: Qwen/Qwen3-32B, tokens_per_s: 1000, gpus: 2}
  - {name: google/gemma-3-27b-it}
  - {name: mystery, model: acme/frobnicator-9000}
"""


@pytest.fixture
def experts(tmp_path: Path) -> Path:
    file = tmp_path / "experts.yaml"
    file.write_text(EXPERTS, encoding="utf-8")
    return file


def options(experts: Path, out: Path) -> list[str]:
    return ["start", "--experts", str(experts), "--encoder", "static", "--out", str(out)]


def test_start_writes_a_policy(experts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "policy"

    code = main([*options(experts, out), "--gpu-usd-per-hour", "2.5", "--json"])
    printed = capsys.readouterr()

    assert code == 0
    assert json.loads(printed.out)["policy_id"] == Policy.load(out).policy_id
    assert "nothing is known of 'acme/frobnicator-9000'" in printed.err
    assert "no price is known of google/gemma-3-27b-it, mystery" in printed.err


def test_a_gpu_price_becomes_a_price_of_tokens(experts: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy"
    main([*options(experts, out), "--gpu-usd-per-hour", "2.5"])

    price = Policy.load(out).pool["qwen"].price

    assert price is not None
    assert price.output == pytest.approx(2.5 * 2 / 3.6)


@pytest.mark.parametrize(
    "text",
    ["experts: []", "experts: [{name: a, model: 3}]", "experts: [{name: a, colour: red}]", "nothing: here"],
)
def test_an_invalid_file_is_one_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "experts.yaml"
    file.write_text(text, encoding="utf-8")

    code = main(["start", "--experts", str(file), "--encoder", "static", "--out", str(tmp_path / "policy")])

    assert code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "policy").exists()


@pytest.fixture
def endpoint() -> Iterator[str]:
    """An endpoint whose experts all answer 42; counts its requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            names = ("llama", "qwen", "google/gemma-3-27b-it", "mystery")
            cards = [{"id": name, "owned_by": "expert"} for name in names]
            cards[-1] |= {"root": "acme/frobnicator-9000-8b"}
            listed = [{"id": "auto", "owned_by": "to-router"}, *cards]
            self._send("application/json", json.dumps({"data": listed}))

        def do_POST(self) -> None:
            requests.append(self.rfile.read(int(self.headers["content-length"])))
            event = {"choices": [{"delta": {"content": "Answer: 42"}}]}
            usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
            lines = [f"data: {json.dumps(one)}\n\n" for one in (event, usage)]
            self._send("text/event-stream", "".join([*lines, "data: [DONE]\n\n"]))

        def _send(self, kind: str, text: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: object) -> None:
            pass

    requests: list[bytes] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_probing_keeps_outcomes_and_resumes(
    experts: Path, endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policy"
    probing = [*options(experts, out), "--probe", "--endpoint", endpoint, "--count", "12"]

    assert main(probing) == 0
    outcomes = read_outcomes(tmp_path / "policy-outcomes.parquet")
    shutil.rmtree(out)
    capsys.readouterr()
    assert main([*probing, "--json"]) == 0

    assert len(outcomes) == 12 * 4
    assert all(row["response"] == "Answer: 42" for row in outcomes)
    assert json.loads(capsys.readouterr().out)["n_queries"] == 12
    assert len((tmp_path / "policy-responses.jsonl").read_text(encoding="utf-8").splitlines()) == 12 * 4


def test_experts_are_those_that_the_endpoint_lists(
    endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probing = ["start", "--encoder", "static", "--probe", "--endpoint", endpoint, "--count", "6", "--json"]

    assert main([*probing, "--out", str(tmp_path / "policy")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["experts"] == ["llama", "qwen", "google/gemma-3-27b-it", "mystery"]
    assert found["prior"]["mystery"]["model"] == "acme/frobnicator-9000-8b"
    assert found["prior"]["mystery"]["origin"] == "facts"


def test_a_budget_limits_the_probes(
    experts: Path, endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policy"

    probing = [*options(experts, out), "--probe", "--endpoint", endpoint, "--count", "30"]
    code = main([*probing, "--budget-usd", "0.0005"])

    assert code == 0
    assert 1 <= Policy.load(out).training["n_queries"] < 30
    assert "at most 0.000" in capsys.readouterr().err


def test_own_queries_without_reference_need_a_judge(
    experts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"query": "Why is the sky blue?"}\n', encoding="utf-8")

    code = main([*options(experts, tmp_path / "policy"), "--probe", "--queries", str(queries)])

    assert code == 2
    assert "--judge" in capsys.readouterr().err


def test_an_unknown_generator_is_one_line(
    experts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*options(experts, tmp_path / "policy"), "--probe", "--generator", "nothing"])

    assert code == 2
    assert "--generator must be one of shipped, reasoning-gym" in capsys.readouterr().err


def test_training_and_new_experts_take_the_prior(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = {"sums": "Qwen/Qwen2.5-Math-7B-Instruct", "words": "google/gemma-2-9b-it"}
    entries = "".join(f"  - {{name: {name}, model: {model}}}\n" for name, model in models.items())
    experts, outcomes = tmp_path / "experts.yaml", tmp_path / "outcomes.parquet"
    experts.write_text(f"experts:\n{entries}", encoding="utf-8")
    write_rows(outcomes, [row for row in rows(40) if row["expert"] in models])
    few = tmp_path / "few.parquet"
    write_rows(few, rows(6))
    prior, own, grown = (tmp_path / name for name in ("prior", "own", "grown"))

    assert main(options(experts, prior)) == 0
    train = ["train", "--outcomes", str(outcomes), "--method", "knn", "--prior", str(prior)]
    assert main([*train, "--out", str(own)]) == 0
    add = ["add-expert", "--policy", str(own), "--outcomes", str(few), "--expert", "large"]
    assert main([*add, "--out", str(grown)]) == 2
    assert main([*add, "--model", "Qwen/Qwen3-32B", "--out", str(grown)]) == 0
    printed = capsys.readouterr().err

    assert Policy.load(own).method.name == "shrunk"
    assert Policy.load(grown).pool.names == ("sums", "words", "large")
    assert "weight of the prior" in printed
    assert "large: expected mean quality" in printed
