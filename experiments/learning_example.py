"""The worked example of docs/learning.md on the default graph: every command, with its real output.

    python -m experiments.learning_example --out FOLDER [--only traffic|learn|trial] [--requests 1300]

Users send sums and letters first, then questions about countries as well, which the policy in effect never
saw. The parts: traffic with exploration and ratings; what-if and learn, which need no graph; shadow, canary
and drift. All run on one start of the graph, or one at a time with `--only`, each from the files of the one
before. FOLDER/example.md gets the commands with their outputs.
"""

import argparse
import asyncio
import contextlib
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster.local.readiness import wait_until_ready
from cluster.local.run import ROOT, serving
from cluster.pocket.questions import Question, questions
from cluster.pocket.train_policy import DEFAULT, MOST_TOKENS
from experiments.deploys import counter, deploy, until
from experiments.explored_graph import send
from router.cli import main as to_router
from router.learning.log import read_folders
from router.learning.record import DecisionRecord

PORT = 8153
FIRST_TASKS = ("arithmetic", "words")
"""What the policy in effect was trained on."""
COLLECTED = 60
BEFORE_CHANGE = 0.3
"""Share of the traffic before users send questions about countries."""
EXPLORE = "explore: {share: 0.4, quality_floor: 0.0}"
"""Without a quality floor: only a draw can show that an expert is better than the policy believes."""
EXPLORE_LESS = "explore: {share: 0.02, quality_floor: 0.5}"
POLICY = "policy: cluster/local/policy       # a folder made by `to-router train`"
LOG = "# log: {folder: var/decisions, max_mib: 512, keep_days: 30, queries: false}"
METHOD = "knn"
SHADOWED, WAVE, MOST_WAVES, AFTER = 60, 150, 8, 60
REPORTED_S = 3.0
"""Replicas report their sums of a canary once a second."""
PARTS = ("traffic", "learn", "trial")
SHADOW_QUERIES = "to_router_shadow_queries_total"


class Example:
    """The files of the example, and its transcript.

    Args:
        out: their folder.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.config = out, out / "serve_config.yaml"
        self.old, self.new, self.log = out / "old", out / "learned" / "policy", out / "decisions"

    def note(self, text: str) -> None:
        """Add lines to the transcript, and print them."""
        print(text, flush=True)
        with (self.out / "example.md").open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")

    def run(self, *arguments: object) -> int:
        """Run a command of `to-router`; returns its exit code."""
        words = [str(word) for word in arguments]
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = to_router(words)
        ends = f"\n(exit code {code})" if code else ""
        self.note(f"```\n$ to-router {' '.join(words)}\n{output.getvalue().rstrip()}{ends}\n```")
        return code

    def change(self, before: str, after: str) -> None:
        """Replace a line of the configuration, which has it once.

        Raises:
            RuntimeError: it has another number of them.
        """
        text = self.config.read_text(encoding="utf-8")
        if text.count(before) != 1:
            raise RuntimeError(f"{self.config} must hold {before!r} once")
        self.config.write_text(text.replace(before, after), encoding="utf-8")
        lines = "\n".join(f"          {line.strip()}" for line in after.splitlines())
        self.note(f"```yaml\n{lines}\n```")

    def deploy(self, url: str) -> None:
        """Deploy the configuration."""
        deploy(self.config, url)
        self.note(f"```\n$ serve deploy {self.config}\n```")

    def send(self, url: str, asked: Sequence[Question], what: str) -> None:
        """Send questions and rate the responses."""
        began = time.monotonic()
        right = asyncio.run(send(url, asked))
        took = time.monotonic() - began
        self.note(f"{len(asked)} requests ({what}), each rated: {right / len(asked):.1%} right, {took:.0f} s")

    @contextmanager
    def graph(self) -> Iterator[str]:
        """The running graph; yields its URL."""
        began, log = time.monotonic(), self.out / "serve.log"
        with serving(self.config, log=log) as (url, process):
            if not wait_until_ready(url, lambda: process.poll() is None, print):
                raise RuntimeError(f"the graph is not ready; see {log}")
            self.note(f"ready after {time.monotonic() - began:.0f} s")
            yield url


def prepare(example: Example) -> None:
    """The configuration of the default graph, with a port of its own."""
    text = (ROOT / "serve_config.yaml").read_text(encoding="utf-8")
    example.config.write_text(text.replace("port: 8000", f"port: {PORT}"), encoding="utf-8")


def traffic(example: Example, url: str, requests: int) -> None:
    """A first policy, the configuration with log and exploration, and traffic with ratings."""
    queries, answers, outcomes = (
        example.out / name for name in ("queries.jsonl", "answers.jsonl", "outcomes.parquet")
    )
    asked = questions("policy", n=COLLECTED, seed=0, tasks=FIRST_TASKS)
    rows = [{"query": one.query, "reference": one.reference, "task": one.task} for one in asked]
    queries.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    where = ("--endpoint", f"{url}/v1", "--queries", queries, "--experts", ",".join(DEFAULT.experts))
    example.run("collect", *where, "--max-tokens", MOST_TOKENS, "--out", answers)
    example.run("label", "--outcomes", answers, "--quality", "contains", "--out", outcomes)
    pool = ("--pool", DEFAULT.pool.relative_to(ROOT))
    how = ("--method", METHOD, "--encoder", "static", "--plans", "none", "--out", example.old)
    example.run("train", "--outcomes", outcomes, *pool, *how)
    example.change(LOG, f"log: {{folder: {example.log}, queries: true}}")
    example.change(POLICY, f"policy: {example.old}\n          {EXPLORE}")
    example.deploy(url)
    first = int(requests * BEFORE_CHANGE)
    example.send(url, questions("heldout", n=first, seed=0, tasks=FIRST_TASKS), "sums and letters")
    example.send(url, questions("heldout", n=requests - first, seed=1), "countries as well")


def learn(example: Example) -> None:
    """What another policy would have given, and a policy learned from the traffic."""
    log = ("--log", example.log)
    example.run("what-if", *log, "--policy", example.old, "--policy", DEFAULT.policy.relative_to(ROOT))
    learned = (*log, "--policy", example.old, "--method", METHOD, "--out", example.new.parent)
    example.run("learn", *learned, "--dry-run")
    example.run("learn", *learned)
    example.note(f"```\n{(example.new.parent / 'report.md').read_text(encoding='utf-8')}```")


def trial(example: Example, url: str) -> None:
    """The learned policy in the shadow, as a canary, and in effect; then drift, and deletion."""
    shadow = f"shadow: {example.new}\n          shadow_folder: {example.log}"
    example.change(EXPLORE, f"{EXPLORE}\n          {shadow}")
    example.deploy(url)
    example.send(url, questions("heldout", n=SHADOWED, seed=2), "with the shadow")
    until(lambda: counter(url, SHADOW_QUERIES) >= SHADOWED)
    example.note(f"{counter(url, SHADOW_QUERIES):.0f} queries scored by the shadow")
    canary = f'canary: {{policy: {example.new}, share: 0.5, until: "2100-01-01"}}  # learned from traffic'
    example.change(f"{EXPLORE}\n          {shadow}", f"{EXPLORE_LESS}\n          {canary}")
    example.deploy(url)
    keep = ("canary", "keep", example.config, "--url", url)
    for wave in range(MOST_WAVES):
        example.send(url, questions("heldout", n=WAVE, seed=3 + wave), "with the canary")
        time.sleep(REPORTED_S)
        if example.run(*keep, "--dry-run") == 0:
            break
    if example.run(*keep):
        return
    example.deploy(url)
    example.send(url, questions("heldout", n=AFTER, seed=20), "with the learned policy")
    example.run("drift", "--log", example.log, "--policy", example.old)
    records = [one for one in read_folders([example.log]) if isinstance(one, DecisionRecord)]
    example.note(f"decisions by policy: {dict(Counter(one.policy for one in records))}")
    example.run("log", "delete", "--log", example.log, "--request", records[0].request_id)


def main() -> int:
    """Run the parts; each leaves what the next one reads."""
    parser = argparse.ArgumentParser(prog="python -m experiments.learning_example", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the example's folder, such as var/example")
    parser.add_argument("--only", choices=PARTS, help="one part; default: all")
    parser.add_argument("--requests", type=int, default=1300, help="of the traffic that is learned from")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only in {None, "traffic"} and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty: a log from before would be read too; name a new folder")
    example = Example(options.out)
    if options.only == "learn":
        learn(example)
        return 0
    if options.only != "trial":
        prepare(example)
    with example.graph() as url:
        if options.only != "trial":
            traffic(example, url, options.requests)
        if options.only is None:
            learn(example)
        if options.only != "traffic":
            trial(example, url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
