"""`to-router plans` prints what plans would give, for people and for programs."""

import json
from pathlib import Path
from typing import Any

import pytest

from router.cli import main
from router.data.outcomes import write_rows
from tests.router.plans.answered import POOL, rows

PLANS = "plans:\n  - {name: mine, ask: [small, code], accept: {at_least: 0.6}, else: large}\n"


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    price = {expert.name: expert.price.cost_usd(12, 9) for expert in POOL if expert.price is not None}
    made = [{**row, "cost_usd": price[row["expert"]]} for row in rows(120)]
    write_rows(tmp_path / "o.parquet", made)
    return tmp_path / "o.parquet"


def test_the_figures_of_plans_are_printed_as_json(outcomes: Path, capsys: Any) -> None:
    assert main(["plans", "--outcomes", str(outcomes), "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    plan = found["plans"][0]
    assert found["n_queries"] == 120
    assert (set(plan["ask"]), plan["samples"], plan["else"]) == ({"small", "code"}, 1, "large")
    assert plan["precision"] > 0.95
    assert plan["quality_ci95"][0] < plan["quality"] < plan["quality_ci95"][1]
    assert plan["gain_over_experts_low"] > 0
    assert 0.3 < plan["acceptance_rate"] < 0.7
    assert plan["cost_usd"] > 0


def test_plans_of_a_file_are_shown_beside_the_experts(outcomes: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "plans.yaml").write_text(PLANS, encoding="utf-8")

    assert main(["plans", "--outcomes", str(outcomes), "--plans", str(tmp_path / "plans.yaml")]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[4:8]] == ["| small", "| code", "| large", "| mine"]


def test_outcomes_without_responses_are_bad_input(tmp_path: Path, capsys: Any) -> None:
    write_rows(tmp_path / "o.jsonl", [{**row, "response": None} for row in rows(20)])

    assert main(["plans", "--outcomes", str(tmp_path / "o.jsonl")]) == 2
    assert "holds no `response`" in capsys.readouterr().err


def test_a_file_without_plans_ends_training_before_any_work(
    outcomes: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "plans.yaml").write_text("plans: []", encoding="utf-8")
    wanted = ["--plans", str(tmp_path / "plans.yaml"), "--out", str(tmp_path / "policy")]

    assert main(["train", "--outcomes", str(outcomes), *wanted]) == 2
    assert "must hold a list `plans`" in capsys.readouterr().err
    assert not (tmp_path / "policy").exists()
