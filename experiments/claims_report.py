"""The paper's three claims from questions and their answers: figures, then tables for people.

Knows nothing of the client that sent the questions.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from cluster.pocket.questions import Question
from cluster.pocket.train_policy import CLAIMS

EXPERTS = CLAIMS.experts


@dataclass(frozen=True, slots=True)
class Result:
    """One question and how it was served."""

    question: Question
    expert: str
    right: bool
    prompt_tokens: int
    completion_tokens: int
    reason: str


@dataclass(frozen=True, slots=True)
class Round:
    """Results of one round's questions."""

    answers: list[Result]
    seconds: float


def speedup(rates: Mapping[str, Sequence[float]]) -> float:
    """Return by which fraction `auto` was faster than the generalist, the median over pairs."""
    pairs = zip(rates["auto"], rates["generalist"], strict=True)
    return statistics.median(auto / general for auto, general in pairs) - 1


def summarise(
    measured: dict[str, list[Round]],
    again: dict[str, list[float]],
    by_level: dict[int, dict[str, list[float]]],
) -> dict[str, Any]:
    """Return the figures of every way, and the three claims.

    Args:
        measured: way → its rounds.
        again: queries/s of `auto` and the generalist for repeated questions.
        by_level: concurrency → queries/s of the two.
    """
    prices = {
        expert["name"]: expert["price_per_mtok"]
        for expert in yaml.safe_load(CLAIMS.pool.read_text(encoding="utf-8"))["experts"]
    }
    table: dict[str, dict[str, Any]] = {}
    for way, rounds in measured.items():
        answers = _all(rounds)
        usd = [
            (a.prompt_tokens * prices[a.expert]["input"] + a.completion_tokens * prices[a.expert]["output"])
            / 1e6
            for a in answers
        ]
        rates = [len(r.answers) / r.seconds for r in rounds]
        tokens = [sum(a.completion_tokens for a in r.answers) / r.seconds for r in rounds]
        table[way] = {
            "quality": statistics.fmean(a.right for a in answers),
            "usd_per_1000_queries": 1000 * statistics.fmean(usd),
            "queries_per_s": statistics.median(rates),
            "queries_per_s_range": [min(rates), max(rates)],
            "completion_tokens_per_s": statistics.median(tokens),
        }
    auto, general = table["auto"], table["generalist"]
    best = max(EXPERTS, key=lambda expert: float(table[expert]["quality"]))
    paired = [a.seconds for a in measured["auto"]], [g.seconds for g in measured["generalist"]]
    speedups = [general_s / auto_s for auto_s, general_s in zip(*paired, strict=True)]
    right_by = {way: [a.right for a in _all(rounds)] for way, rounds in measured.items()}
    answerable = [any(right_by[expert][i] for expert in EXPERTS) for i in range(len(right_by["auto"]))]
    routed_right = sum(r for r, possible in zip(right_by["auto"], answerable, strict=True) if possible)
    return {
        "n_questions": len(right_by["auto"]),
        "rounds": len(measured["auto"]),
        "ways": table,
        "best_single": best,
        "claims": {
            "quality_gain_over_best_single": auto["quality"] - table[best]["quality"],
            "cost_saved_against_generalist": 1
            - auto["usd_per_1000_queries"] / general["usd_per_1000_queries"],
            "more_queries_per_s_than_generalist": statistics.median(speedups) - 1,
            "more_queries_per_s_range": [min(speedups) - 1, max(speedups) - 1],
            "more_queries_per_s_when_asked_again": speedup(again),
            "routed_to_a_right_expert_where_one_exists": routed_right / sum(answerable),
        },
        "right_by_task": _by_task(measured),
        "routed_by_task": _routed(_all(measured["auto"])),
        "without_the_router": sum(a.reason != "routed" for a in _all(measured["auto"])),
        "queries_per_s_by_concurrency": {
            level: {**{way: statistics.median(rates) for way, rates in of.items()}, "more": speedup(of)}
            for level, of in by_level.items()
        },
    }


def _all(rounds: Sequence[Round]) -> list[Result]:
    return [answer for round_ in rounds for answer in round_.answers]


def _by_task(measured: dict[str, list[Round]]) -> dict[str, dict[str, float]]:
    right_by: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for way, rounds in measured.items():
        for answer in _all(rounds):
            right_by[way][answer.question.task].append(answer.right)
    return {
        way: {task: statistics.fmean(right) for task, right in tasks.items()}
        for way, tasks in right_by.items()
    }


def _routed(answers: Sequence[Result]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(EXPERTS, 0))
    for answer in answers:
        counts[answer.question.task][answer.expert] += 1
    return dict(counts)


def as_markdown(figures: dict[str, Any]) -> str:
    """Return the tables, for docs and terminals."""
    claims = figures["claims"]
    setting = (
        f"{figures['n_questions']} held-out questions, none twice, in {figures['rounds']} rounds, each way "
        f"in turn, concurrency {figures['concurrency']}, one machine with 2 cores and no GPU for client, "
        "graph and engines."
    )
    lines = [
        "# The paper's claims on the served pocket experts",
        "",
        "Written by `make claims`; every figure is from the last run of that command.",
        setting,
        "",
        "| served by | quality | US$ per 1,000 queries | queries/s (median, range) | completion tokens/s |",
        "|---|---|---|---|---|",
    ]
    for way, row in figures["ways"].items():
        low, high = row["queries_per_s_range"]
        lines.append(
            f"| {way} | {row['quality']:.3f} | {row['usd_per_1000_queries']:.5f} | "
            f"{row['queries_per_s']:.1f} ({low:.1f}–{high:.1f}) | {row['completion_tokens_per_s']:.0f} |"
        )
    low, high = claims["more_queries_per_s_range"]
    quality = f"{100 * claims['quality_gain_over_best_single']:+.1f} points with `auto`"
    rate = (
        f"{claims['more_queries_per_s_than_generalist']:+.1%} queries per second against the generalist alone"
    )
    right = f"{claims['routed_to_a_right_expert_where_one_exists']:.1%} of the questions that any expert"
    kinds = list(figures["right_by_task"]["auto"])
    lines += [
        "",
        f"- Quality: {quality} against the best single expert ({figures['best_single']}).",
        f"- Cost: {claims['cost_saved_against_generalist']:.1%} less than the generalist alone.",
        f"- Efficiency: {rate} (paired by round, {low:+.1%} to {high:+.1%}).",
        f"- Repeated questions, with their embeddings in the router's cache: "
        f"{claims['more_queries_per_s_when_asked_again']:+.1%} queries per second.",
        f"- Routing: {right} answers correctly went to such an expert.",
        "",
        f"Decisions of `auto` that were late, so that the static ranking was used: "
        f"{figures['without_the_router']} of {figures['n_questions']}.",
        "",
        "Queries per second by concurrency, in turn with each other, with new questions of the train split.",
        "All engines share the machine's cores here, and with such small models the time depends on steps, "
        "not on tokens: the generalist computes one batch of requests, and `auto` spreads them over three "
        "engines.",
        "",
        "| concurrency | auto | generalist alone | more |",
        "|---|---|---|---|",
        *(
            f"| {level} | {row['auto']:.1f} | {row['generalist']:.1f} | {row['more']:+.1%} |"
            for level, row in figures["queries_per_s_by_concurrency"].items()
        ),
        "",
        "Share of correct answers by kind of question:",
        "",
        f"| served by | {' | '.join(kinds)} |",
        "|---" * (1 + len(kinds)) + "|",
    ]
    lines += [
        f"| {way} | " + " | ".join(f"{right:.3f}" for right in tasks.values()) + " |"
        for way, tasks in figures["right_by_task"].items()
    ]
    lines += [
        "",
        "Experts that `auto` selected:",
        "",
        "| kind | " + " | ".join(EXPERTS) + " |",
        "|---" * (1 + len(EXPERTS)) + "|",
    ]
    lines += [
        f"| {task} | " + " | ".join(str(count) for count in counts.values()) + " |"
        for task, counts in figures["routed_by_task"].items()
    ]
    return "\n".join(lines) + "\n"
