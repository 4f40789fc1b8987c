"""Plans on the served pocket experts: real engines, their own log-probabilities, held-out questions.

    python -m experiments.served_plans collect|train|measure|report [--n 1000] [--seconds 200] [--out FOLDER]

`collect` records every expert's answers and log-probabilities to the policy's questions, `train` makes a
policy with plans from them, `measure` sends held-out questions through `auto` with plans and without, one at
a time at temperature 0, and what a plan accepted to the member alone. Each step resumes where it stopped, so
that a run can be split; `report` writes served-plans.json and served-plans.md.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import yaml

from cluster.local.readiness import wait_until_ready
from cluster.local.run import ROOT, serving
from cluster.pocket.questions import Question, questions
from experiments.served_plans_report import as_markdown, summarise
from router.experts import Price
from router.learning.log import log_files, read_records
from router.learning.record import DecisionRecord

CONFIG, POOL = ROOT / "cluster" / "local" / "claims.yaml", ROOT / "cluster" / "local" / "claims-experts.yaml"
PORT = 8142
EXPERTS = ("arithmetic", "words", "atlas", "generalist")
MOST_TOKENS = 16
TRAINED_ON, TRAINED_ON_SEED, HELD_OUT_SEED = 900, 1, 7
WAYS: dict[str, dict[str, Any]] = {
    "default, plans": {},
    "default, no plans": {"plans": False},
    "best quality, plans": {"cost_weight": 0.0},
    "best quality, no plans": {"cost_weight": 0.0, "plans": False},
}
"""Way → the `routing` object of its requests."""
WARM_UP = 20
RESPONSE_WITHIN_S = 60.0


class Client:
    """Sends one streaming request at a time, on one connection."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(url.removeprefix("http://"), timeout=RESPONSE_WITHIN_S)

    def send(self, query: str, model: str, routing: dict[str, Any]) -> dict[str, Any]:
        """Text, times and headers of a response.

        Raises:
            RuntimeError: the response was not successful.
        """
        body = {
            "model": model,
            "messages": [{"role": "user", "content": query}],
            "max_tokens": MOST_TOKENS,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "routing": routing,
        }
        began = time.perf_counter()
        headers = {"content-type": "application/json"}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = self._connection.getresponse()
        text, ttft_s, usage = "", None, None
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            for choice in event.get("choices", ()):
                if content := choice.get("delta", {}).get("content"):
                    ttft_s = ttft_s or time.perf_counter() - began
                    text += content
            usage = event.get("usage") or usage
        if response.status != 200 or usage is None:
            raise RuntimeError(f"{model} returned {response.status}")
        return {
            "text": text.strip(),
            "ttft_s": ttft_s,
            "e2e_s": time.perf_counter() - began,
            "prompt_tokens": usage["prompt_tokens"],
            "completion_tokens": usage["completion_tokens"],
            "id": response.headers["x-request-id"],
            "expert": response.headers["x-router-expert"],
            "plan": response.headers.get("x-router-plan"),
            "accepted": response.headers.get("x-router-accepted"),
        }


def collect(options: argparse.Namespace) -> None:
    """Record the experts' answers to the questions that the policy learns from."""
    queries = options.out / "queries.jsonl"
    drawn = questions("policy", n=options.trained_on, seed=TRAINED_ON_SEED)
    with queries.open("w", encoding="utf-8") as file:
        for number, question in enumerate(drawn):
            row = {"query_id": f"q{number:05d}", "query": question.query, "reference": question.reference}
            file.write(json.dumps(row) + "\n")
    config = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    with _graph(config, options, "collect") as url:
        sent = ("--endpoint", f"{url}/v1", "--queries", queries, "--experts", ",".join(EXPERTS))
        answers = options.out / "answers.jsonl"
        _run("collect", *sent, "--max-tokens", MOST_TOKENS, "--logprobs", "--out", answers)
    (options.out / "outcomes.parquet").unlink(missing_ok=True)


def train(options: argparse.Namespace) -> None:
    """Make the policy with plans."""
    answers, outcomes, policy = (
        options.out / name for name in ("answers.jsonl", "outcomes.parquet", "policy")
    )
    if not outcomes.is_file():
        _run("label", "--outcomes", answers, "--quality", "exact", "--out", outcomes)
    if not policy.is_dir():
        of = ("--pool", options.pool, "--encoder", "static", "--plans", options.plans)
        _run("train", "--outcomes", outcomes, *of, "--out", policy)


def measure(options: argparse.Namespace) -> None:
    """Send held-out questions every way, until all are answered or the time is over."""
    config = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    application = config["applications"][0]
    application["args"]["ingress"]["router_deadline_ms"] = 10_000  # a busy machine changes no decision
    ingress, router = (deployment["user_config"] for deployment in application["deployments"])
    router["policy"] = str((options.out / "policy").resolve())
    router.pop("preferences", None)  # the policy's own, which training chose
    ingress["log"] = {"folder": str((options.out / "log").resolve())}
    file = options.out / "results.jsonl"
    done = {row["question"] for row in _rows(file)}
    drawn = questions("heldout", n=options.n, seed=HELD_OUT_SEED)
    left = [(number, question) for number, question in enumerate(drawn) if number not in done]
    with _graph(config, options, "measure") as url, file.open("a", encoding="utf-8") as results:
        client, end = Client(url), time.monotonic() + options.seconds
        for question in questions("policy", n=WARM_UP, seed=HELD_OUT_SEED):
            for routing in WAYS.values():
                client.send(question.query, "auto", routing)
        for number, question in left:
            if time.monotonic() > end:
                break
            results.write(json.dumps(_answers(client, number, question)) + "\n")
            results.flush()
    print(f"{sum(1 for _ in _rows(file))} of {options.n} questions measured")


def _answers(client: Client, number: int, question: Question) -> dict[str, Any]:
    """One question every way, in random order; and the member's own answer where a plan accepted."""
    found = {}
    for way in random.Random(number).sample(list(WAYS), len(WAYS)):
        answer = client.send(question.query, "auto", WAYS[way])
        text = answer.pop("text")
        found[way] = {**answer, "quality": float(text == question.reference)}
        if answer["accepted"] == "true":
            found[way]["is_members_own"] = client.send(question.query, answer["expert"], {})["text"] == text
    return {"question": number, "kind": question.kind, "ways": found}


def report(options: argparse.Namespace) -> None:
    """Join results and decision records, and write the figures."""
    config = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    prices = config["applications"][0]["deployments"][1]["user_config"]["prices"]
    records = {
        record.request_id: record
        for file in log_files(options.out / "log")
        for record in read_records(file)
        if isinstance(record, DecisionRecord)
    }
    results = list(_rows(options.out / "results.jsonl"))
    figures = summarise(results, records, {name: Price(**price) for name, price in prices.items()})
    (options.out / "served-plans.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (options.out / "served-plans.md").write_text(as_markdown(figures), encoding="utf-8")
    print(as_markdown(figures))


@contextmanager
def _graph(config: dict[str, Any], options: argparse.Namespace, step: str) -> Iterator[str]:
    """The served graph; its experts are ready, and its router too where it has a policy.

    Raises:
        RuntimeError: it did not start.
    """
    file, log = options.out / f"{step}.yaml", options.out / f"{step}.log"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    with serving(file, port=PORT, log=log) as (url, process):
        if not wait_until_ready(url, lambda: process.poll() is None, print):
            raise RuntimeError(f"the graph did not start; see {log}")
        yield url


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def _run(*command: object) -> None:
    line = [str(part) for part in command]
    print("$ to-router " + " ".join(line), flush=True)
    subprocess.run([str(Path(sys.executable).parent / "to-router"), *line], check=True, cwd=ROOT)


STEPS = {"collect": collect, "train": train, "measure": measure, "report": report}


def main(arguments: Sequence[str] | None = None) -> int:
    """Take one step, or all of them in order."""
    parser = argparse.ArgumentParser(prog="python -m experiments.served_plans", description=__doc__)
    parser.add_argument("step", nargs="?", choices=list(STEPS), help="left out, all steps")
    parser.add_argument("--config", type=Path, default=CONFIG, help="the served graph")
    parser.add_argument("--pool", type=Path, default=POOL, help="the experts' prices")
    parser.add_argument("--plans", default="auto", help="as for `to-router train`")
    parser.add_argument("--trained-on", type=int, default=TRAINED_ON, help="questions to learn from")
    parser.add_argument("--n", type=int, default=1000, help="held-out questions")
    parser.add_argument("--seconds", type=float, default=3600.0, help="time for one run of `measure`")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "served-plans")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in STEPS if options.step is None else (options.step,):
        STEPS[name](options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
