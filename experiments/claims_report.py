"""What was asked and answered becomes the paper's three claims: figures, then tables for people.

Knows nothing of how the questions were asked.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from cluster.pocket.questions import Question
from cluster.pocket.train_policy import EXPERTS, LOCAL


@dataclass(frozen=True, slots=True)
class Answered:
    """One question's answer as it was served."""

    question: Question
    expert: str
    right: bool
    prompt_tokens: int
    completion_tokens: int
    reason: str


@dataclass(frozen=True, slots=True)
class Round:
    """A round's questions, asked once."""

    answers: list[Answered]
    seconds: float


def speedup(rates: Mapping[str, Sequence[float]]) -> float:
    """Median over pairs of how much faster `auto` was than the generalist, as a fraction."""
    pairs = zip(rates["auto"], rates["generalist"], strict=True)
    return statistics.median(auto / general for auto, general in pairs) - 1


def summarise(
    measured: dict[str, list[Round]],
    again: dict[str, list[float]],
    by_level: dict[int, dict[str, list[float]]],
) -> dict[str, Any]:
    """Figures of every way, and the three claims.

    Args:
        measured: way → its rounds.
        again: queries/s of `auto` and the generalist for questions that were asked before.
        by_level: requests at a time → queries/s of the two.
    """
    prices = {
        expert["name"]: expert["price_per_mtok"]
        for expert in yaml.safe_load((LOCAL / "experts.yaml").read_text(encoding="utf-8"))["experts"]
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
            level: {**{way: statistics.median(found) for way, found in of.items()}, "more": speedup(of)}
            for level, of in by_level.items()
        },
    }


def _all(rounds: Sequence[Round]) -> list[Answered]:
    return [answer for round_ in rounds for answer in round_.answers]


def _by_task(measured: dict[str, list[Round]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for way, rounds in measured.items():
        for answer in _all(rounds):
            found[way][answer.question.task].append(answer.right)
    return {
        way: {task: statistics.fmean(right) for task, right in tasks.items()} for way, tasks in found.items()
    }


def _routed(answers: Sequence[Answered]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(EXPERTS, 0))
    for answer in answers:
        found[answer.question.task][answer.expert] += 1
    return dict(found)


def as_markdown(figures: dict[str, Any]) -> str:
    """The tables, for docs and terminals."""
    claims = figures["claims"]
    setting = (
        f"{figures['n_questions']} held-out questions, none twice, in {figures['rounds']} rounds, each way "
        f"in turn, {figures['concurrency']} at a time, one machine with 2 cores and no GPU for client, graph "
        "and engines."
    )
    lines = [
        "# The paper's claims on the served pocket experts",
        "",
        "Made by `make claims`; every figure comes from that command's last run.",
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
    quality = f"`auto` answers {100 * claims['quality_gain_over_best_single']:+.1f} points more right"
    rate = (
        f"{claims['more_queries_per_s_than_generalist']:+.1%} queries per second against the generalist alone"
    )
    right = f"{claims['routed_to_a_right_expert_where_one_exists']:.1%} of the questions that any expert"
    kinds = list(figures["right_by_task"]["auto"])
    lines += [
        "",
        f"- Quality: {quality} than the best single expert ({figures['best_single']}).",
        f"- Cost: {claims['cost_saved_against_generalist']:.1%} less than the generalist alone.",
        f"- Efficiency: {rate} (paired by round, {low:+.1%} to {high:+.1%}).",
        f"- Questions that come again, their embeddings in the router's cache: "
        f"{claims['more_queries_per_s_when_asked_again']:+.1%} queries per second.",
        f"- Routing: {right} answers right went to one that does.",
        "",
        f"Decisions of `auto` that came too late and were taken from the static ranking: "
        f"{figures['without_the_router']} of {figures['n_questions']}.",
        "",
        "Queries per second by requests at a time, in turn with each other, with questions of the train "
        "split that were not asked before.",
        "All engines share the machine's cores here, and models this small cost time by the step, not by the "
        "token: what the generalist answers in one batch, `auto` spreads over three engines.",
        "",
        "| at a time | auto | generalist alone | more |",
        "|---|---|---|---|",
        *(
            f"| {level} | {row['auto']:.1f} | {row['generalist']:.1f} | {row['more']:+.1%} |"
            for level, row in figures["queries_per_s_by_concurrency"].items()
        ),
        "",
        "Share of right answers by kind of question:",
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
        "Where `auto` sent them:",
        "",
        "| kind | " + " | ".join(EXPERTS) + " |",
        "|---" * (1 + len(EXPERTS)) + "|",
    ]
    lines += [
        f"| {task} | " + " | ".join(str(count) for count in counts.values()) + " |"
        for task, counts in figures["routed_by_task"].items()
    ]
    return "\n".join(lines) + "\n"
