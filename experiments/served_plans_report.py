"""Figures of plans on the served graph, from responses and decision records; then tables for people."""

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

import numpy as np

from router.experts import Price
from router.learning.record import DecisionRecord

RESAMPLES = 2000


def spent_usd(record: DecisionRecord, prices: Mapping[str, Price]) -> float:
    """Cost of all calls of a request: the returned response, and what its plan read beside it."""
    aside = (
        prices[attempt.expert].cost_usd(attempt.prompt_tokens, attempt.completion_tokens or 0)
        for attempt in record.attempts
        if attempt.prompt_tokens is not None
    )
    return (record.cost_usd or 0.0) + sum(aside)


def predicted_usd(record: DecisionRecord) -> float | None:
    """Cost as the decision predicted it: of the plan, else of the expert that responded."""
    if record.plan is not None and record.plan.accepted is not None:
        return record.plan.cost_usd
    return None if record.expert is None else (record.costs_usd or {}).get(record.expert)


def summarise(
    results: Sequence[Mapping[str, Any]],
    records: Mapping[str, DecisionRecord],
    prices: Mapping[str, Price],
) -> dict[str, Any]:
    """Figures of each way, the gain of plans with its interval, and observed beside predicted.

    Args:
        results: one row for each question, with the answer of every way.
        records: by request id.
        prices: by expert.
    """
    complete = [row for row in results if all(answer["id"] in records for answer in row["ways"].values())]
    if not complete:
        raise ValueError("no question has the decision records of all its answers")
    ways = sorted(complete[0]["ways"])  # "no plans" comes before "plans", for each preference
    by_way = {way: [row["ways"][way] for row in complete] for way in ways}
    usd = {way: [spent_usd(records[one["id"]], prices) for one in by_way[way]] for way in ways}
    return {
        "questions": len(complete),
        "left_out": len(results) - len(complete),
        "ways": {way: _way(by_way[way], usd[way], records) for way in ways},
        "gains": {
            way: _paired([one["quality"] for one in by_way[way]], [one["quality"] for one in by_way[other]])
            for way, other in zip(ways[1::2], ways[::2], strict=True)
        },
        "plans": {way: _plans(by_way[way], usd[way], records) for way in ways[1::2]},
    }


def _way(
    answers: Sequence[Mapping[str, Any]], usd: Sequence[float], records: Mapping[str, DecisionRecord]
) -> dict[str, float]:
    predicted = [predicted_usd(records[one["id"]]) for one in answers]
    return {
        "quality": mean(one["quality"] for one in answers),
        "usd_per_1000": 1000 * mean(usd),
        "predicted_usd_per_1000": 1000 * mean(value or 0.0 for value in predicted),
        "ttft_ms_p50": 1000 * median(one["ttft_s"] or one["e2e_s"] for one in answers),
        "e2e_ms_p50": 1000 * median(one["e2e_s"] for one in answers),
        "e2e_ms_p95": 1000 * float(np.quantile([one["e2e_s"] for one in answers], 0.95)),
        "share_of_plans": mean(one["plan"] is not None for one in answers),
    }


def _plans(
    answers: Sequence[Mapping[str, Any]], usd: Sequence[float], records: Mapping[str, DecisionRecord]
) -> dict[str, float | None]:
    """Observed beside predicted, where a plan was carried out."""
    carried = [(one, cost) for one, cost in zip(answers, usd, strict=True) if one["plan"] is not None]
    facts = [records[one["id"]].plan for one, _ in carried]
    accepted = [
        (one, plan) for (one, _), plan in zip(carried, facts, strict=True) if one["accepted"] == "true"
    ]
    return {
        "n": len(carried),
        "acceptance": _mean([one["accepted"] == "true" for one, _ in carried]),
        "predicted_acceptance": _mean(
            [plan.p_accept for plan in facts if plan and plan.p_accept is not None]
        ),
        "precision": _mean([one["quality"] for one, _ in accepted]),
        "predicted_precision": _mean([p.p_right for _, p in accepted if p and p.p_right is not None]),
        "usd_per_1000": _mean([1000 * cost for _, cost in carried]),
        "predicted_usd_per_1000": _mean([1000 * plan.cost_usd for plan in facts if plan and plan.cost_usd]),
        "accepted": len(accepted),
        "accepted_is_members_own": _mean([one["is_members_own"] for one, _ in accepted]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return mean(values) if values else None


def _paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Mean paired difference, and its 95 % interval by a bootstrap over questions."""
    apart = np.array(ours) - np.array(theirs)
    drawn = np.random.default_rng(0).multinomial(len(apart), np.full(len(apart), 1 / len(apart)), RESAMPLES)
    low, high = np.quantile(drawn @ apart / len(apart), (0.025, 0.975))
    return {"gain": float(apart.mean()), "low": float(low), "high": float(high)}


def as_markdown(figures: Mapping[str, Any]) -> str:
    """Two tables: the ways, and the plans' predictions."""
    lines = [
        f"{figures['questions']} held-out questions, one at a time.",
        "",
        "| requests | quality | US$ per 1,000 | predicted | TTFT p50, ms | end to end p50, ms | p95, ms "
        "| plans |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way, found in figures["ways"].items():
        lines.append(
            f"| {way} | {found['quality']:.4f} | {found['usd_per_1000']:.5f} | "
            f"{found['predicted_usd_per_1000']:.5f} | {found['ttft_ms_p50']:.1f} | "
            f"{found['e2e_ms_p50']:.1f} | {found['e2e_ms_p95']:.1f} | {found['share_of_plans']:.1%} |"
        )
    lines += [
        "",
        "| requests | gain of plans (95 %) | carried out | accepted | predicted | precision | predicted "
        "| US$ per 1,000 | predicted | the member's own answer |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for way, found in figures["plans"].items():
        gain = figures["gains"][way]
        cells = [
            f"{100 * gain['gain']:+.2f} ({100 * gain['low']:+.2f} to {100 * gain['high']:+.2f})",
            str(found["n"]),
            *(_share(found[name]) for name in ("acceptance", "predicted_acceptance")),
            *(_share(found[name]) for name in ("precision", "predicted_precision")),
            *(_number(found[name]) for name in ("usd_per_1000", "predicted_usd_per_1000")),
            _share(found["accepted_is_members_own"]),
        ]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.5f}"
