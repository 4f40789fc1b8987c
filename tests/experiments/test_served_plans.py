"""Figures of plans on the served graph add up every call, and compare with what was predicted."""

from typing import Any

import pytest

from experiments.served_plans_report import as_markdown, spent_usd, summarise
from router.experts import Price
from router.learning.record import AttemptRecord, DecisionRecord, PlanRecord

PRICES = {"small": Price(1.0, 2.0), "large": Price(10.0, 20.0)}


def record(id_: str, *, accepted: bool | None) -> DecisionRecord:
    plan = None if accepted is None else PlanRecord("check", accepted, "", 0.9, 0.75, None, 30e-6)
    aside = () if accepted else (AttemptRecord("small", "rejected", 0.1, 10, 5),)
    return DecisionRecord(
        request_id=id_,
        expert="small" if accepted else "large",
        plan=plan,
        attempts=aside if accepted is not None else (),
        cost_usd=20e-6 if accepted else 200e-6,
        costs_usd={"small": 21e-6, "large": 190e-6},
    )


def answer(id_: str, *, accepted: bool | None, quality: float) -> dict[str, Any]:
    return {
        "id": id_,
        "quality": quality,
        "ttft_s": 0.01,
        "e2e_s": 0.02,
        "expert": "small" if accepted else "large",
        "plan": None if accepted is None else "check",
        "accepted": None if accepted is None else str(accepted).lower(),
        "is_members_own": True,
    }


def test_a_rejected_answer_is_part_of_what_was_spent() -> None:
    assert spent_usd(record("a", accepted=False), PRICES) == pytest.approx(200e-6 + 20e-6)
    assert spent_usd(record("a", accepted=True), PRICES) == pytest.approx(20e-6)


def test_plans_are_compared_with_no_plans_and_their_predictions() -> None:
    rows, records = [], {}
    for number in range(4):
        ways = {"plans": number > 0, "no plans": None}
        row: dict[str, Any] = {}
        for way, accepted in ways.items():
            id_ = f"{way}{number}"
            records[id_] = record(id_, accepted=accepted)
            row[way] = answer(id_, accepted=accepted, quality=1.0 if way == "plans" else float(number > 1))
        rows.append({"question": number, "ways": row})
    rows.append({"question": 4, "ways": {"plans": {"id": "lost"}, "no plans": {"id": "lost"}}})

    figures = summarise(rows, records, PRICES)

    assert (figures["questions"], figures["left_out"]) == (4, 1)
    assert figures["gains"]["plans"]["gain"] == pytest.approx(0.5)
    assert figures["plans"]["plans"]["acceptance"] == 0.75
    assert figures["plans"]["plans"]["predicted_acceptance"] == 0.75
    assert figures["plans"]["plans"]["precision"] == 1.0
    assert figures["plans"]["plans"]["usd_per_1000"] == pytest.approx(1000 * (3 * 20e-6 + 220e-6) / 4)
    assert "| plans | +50.00" in as_markdown(figures)
