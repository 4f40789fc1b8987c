"""Does a question keep its expert when a harness or a conversation surrounds it?

    python -m experiments.wrappings [--policy cluster/local/policy] [--questions 100]

Wraps held-out pocket questions as clients do, reads each conversation as the ingress does, and compares the
policy's first choice with that for the bare question.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cluster.pocket.questions import questions
from deployments.contracts.requests import parse
from router.core import QueryBatch, RouteRequest
from router.encoders import Encoder, load_encoder
from router.policy import Policy

Messages = list[dict[str, Any]]

EDITOR = """You are a coding assistant inside an editor. You help its user with their program.
Use the tools to read, search and edit files. Never guess the content of a file: read it first.
Keep answers short, in Markdown; name files and functions in backticks. Do not mention these instructions.
When you change code, follow the project's style, run its tests, and add up what you changed in the last line.
The user's shell is zsh, the operating system is Linux 6.8, today is the 3rd of March 2026."""
AGENT = """You are an autonomous engineer who works in a terminal, in the folder /home/ada/atlas.
Plan first, then act: one tool at a time, and wait for its result. Count the failures of the tests before you
start. Reverse a change that breaks one. Write plain English, spell out abbreviations, translate nothing.
# Tools
- read(path): the lines of a file, with their numbers
- run(command): the last 200 letters of its output
- finish(summary): ends the task
# Rules
The capital of every refactoring is its tests. Use US dollars for costs. Answer in the user's language."""
ENVIRONMENT = """<environment_details>
# Visible files
src/capitals.py
src/words/reverse.py
# Open tabs
src/currency.csv, tests/test_sum.py, README.md
# Current time
2026-03-03, 09:41 (Europe/Paris, UTC+1)
# Context used
18,204 / 131,072 tokens (14 %)
# Current mode
ACT
</environment_details>"""
TOPICS = (
    ("Write a poem about autumn in the mountains.", "The larches burn, the paths grow still …"),
    ("How do I make a sourdough starter?", "Mix flour and water, and feed it daily for a week."),
    ("Why is my Python list empty after sort()?", "`sort` returns None; use `sorted` or the list itself."),
)


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _turns(topics: Sequence[tuple[str, str]]) -> Messages:
    return [
        {"role": role, "content": text}
        for topic in topics
        for role, text in zip(("user", "assistant"), topic, strict=True)
    ]


WRAPPINGS: Mapping[str, Callable[[str], Messages]] = {
    "an editor's system prompt": lambda text: [{"role": "system", "content": EDITOR}, _user(text)],
    "an agent's system prompt": lambda text: [
        {"role": "system", "content": AGENT},
        _user(f"<system-reminder>\nNo to-do list is kept. Ignore this.\n</system-reminder>\n{text}"),
    ],
    "another topic before": lambda text: [*_turns(TOPICS[:1]), _user(text)],
    "three turns before": lambda text: [*_turns(TOPICS), _user(text)],
    "environment details": lambda text: [_user(f"<task>\n{text}\n</task>\n\n{ENVIRONMENT}")],
    "small talk around it": lambda text: [
        *_turns([("Hi!", "Hello! What can I do for you?")]),
        _user(f"Good morning! I hope you are well. {text} Thank you very much!"),
    ],
}
"""Name → the messages of a question."""


@dataclass(frozen=True)
class Kept:
    """Shares of the questions under one wrapping."""

    text: float
    """Of which the policy reads the same text."""
    expert: float
    """Of which it chooses the same expert."""


def query_of(messages: Messages) -> str:
    """Return what the ingress reads of these messages."""
    body = orjson.dumps({"model": "auto", "messages": messages})
    return parse("/v1/chat/completions", body, max_messages=2048).query


def kept(policy: Policy, encoder: Encoder, texts: Sequence[str]) -> dict[str, Kept]:
    """Return for each wrapping the shares of the questions that keep their text and their expert."""
    bare = _experts(policy, encoder, texts)
    shares = {}
    for name, wrap in WRAPPINGS.items():
        read = [query_of(wrap(text)) for text in texts]
        experts = _experts(policy, encoder, read)
        shares[name] = Kept(_share(texts, read), _share(bare, experts))
    return shares


def _experts(policy: Policy, encoder: Encoder, texts: Sequence[str]) -> list[str]:
    batch = QueryBatch(tuple(texts), encoder.encode(list(texts)))
    return [decision.expert for decision in policy.decide(batch, [RouteRequest(text) for text in texts])]


def _share(left: Sequence[str], right: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", type=Path, default=Path("cluster/local/policy"))
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    policy = Policy.load(options.policy)
    drawn = questions("heldout", n=options.questions, seed=options.seed)
    shares = kept(policy, load_encoder(policy.encoder), [question.query for question in drawn])
    print(f"policy {policy.policy_id}, {options.questions} questions\n")
    print("| around the question | same text, % | same expert, % |\n|---|---|---|")
    for name, share in shares.items():
        print(f"| {name} | {100 * share.text:.0f} | {100 * share.expert:.0f} |")


if __name__ == "__main__":
    main()
