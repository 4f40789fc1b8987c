"""A policy with plans for simulated experts that answer sums, made from the answers that they will give.

A simulated expert's answer to a query is known without calling it, so its outcomes are too: nothing is
collected, and every acceptance can be checked.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployments.simulated import sums
from router.answers import final_answer
from router.data.dataset import to_dataset
from router.encoders import load_encoder
from router.experts import CandidatePool, ExpertProfile, Price
from router.plans.plan import Plan
from router.policy import Policy
from router.training.card import card
from router.training.train import train

RIGHT = (0.75, 0.75, 0.6, 0.85)
"""Fractions of sums that the experts answer correctly, in their order; the last one is expensive."""
CHEAP, EXPENSIVE = Price(0.05, 0.10), Price(0.50, 1.00)
QUERIES, SAMPLES, TOKENS, HOLD_TOKENS = 300, 3, 5, 3
PROMPT_TOKENS = 12


def behaviour(experts: Sequence[str], tokens: int = TOKENS) -> dict[str, dict[str, Any]]:
    """The `simulate` field of a request whose experts answer sums, in so many tokens."""
    return {
        name: {"sums": right, "echo": False, "tokens": tokens}
        for name, right in zip(experts, RIGHT, strict=True)
    }


def answer_of(experts: Sequence[str], name: str, query: str, sample: int = 0) -> str:
    """The answer that a simulated expert gives to a query."""
    return sums.answer(name, query, RIGHT[experts.index(name)], sample).text


def plans_of(experts: Sequence[str], hold_tokens: int = HOLD_TOKENS) -> dict[str, Plan]:
    """One plan of each kind over four experts: by check, by agreement, by vote, by a stream's beginning."""
    first, second, _, last = experts
    return {
        "check": Plan("check", (first,), last, 0.8),
        "agree": Plan("agree", (first, second), last, 0.8),
        "vote": Plan("vote", (first,), last, 0.8, samples=SAMPLES),
        "hold": Plan("hold", (first,), last, 0.8, hold_tokens=hold_tokens),
    }


def make_policy(
    experts: Sequence[str], folder: Path, *, tokens: int = TOKENS, hold_tokens: int = HOLD_TOKENS
) -> Policy:
    """Train a policy with `plans_of` four experts, and save it to a new folder.

    Args:
        experts: their names, the expensive one last.
        folder: of the policy.
        tokens: length of the experts' answers.
        hold_tokens: those by which the plan `hold` judges a stream.
    """
    drawn = random.Random(0)
    queries = [f"What is {drawn.randint(1, 999)} + {drawn.randint(1, 999)}?" for _ in range(QUERIES)]
    rows = [
        _outcome(experts, name, f"q{number}", query, sample, tokens)
        for number, query in enumerate(queries)
        for name in experts
        for sample in range(SAMPLES if name == experts[0] else 1)
    ]
    pool = CandidatePool(
        [ExpertProfile(name, EXPENSIVE if name == experts[-1] else CHEAP) for name in experts]
    )
    dataset = to_dataset(rows, pool=pool)
    encoder = load_encoder("static")
    plans = tuple(plans_of(experts, hold_tokens).values())
    policy = train(dataset, encoder.encode(dataset.texts), encoder.spec, method="linear", plans=plans)
    return policy.save(folder, card(policy))


def _outcome(
    experts: Sequence[str], name: str, id_: str, query: str, sample: int, tokens: int
) -> dict[str, Any]:
    answer = sums.answer(name, query, RIGHT[experts.index(name)], sample, tokens=tokens)
    return {
        "query_id": id_,
        "query": query,
        "expert": name,
        "sample": sample,
        "quality": float(final_answer(answer.text) == str(sums.result_of(query))),
        "response": answer.text,
        "finish_reason": answer.finish,
        "token_logprobs": list(answer.logprobs),
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": len(answer.words),
        "ttft_s": 0.05,
        "latency_s": 0.05,
    }
