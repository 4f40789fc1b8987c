"""Every experiment explains itself, and its pure parts compute what its table shows."""

import random
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from experiments import constant_router, encoder_roofline, ingress_alone, leave_one_out, speed, tables
from experiments.data import mean_and_spread, recorded
from experiments.routing_step import a_query
from router.core import RouteRequest
from router.encoders import DEFAULT
from router.errors import InputError

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
COMMANDS = sorted(file.stem for file in FOLDER.glob("*.py") if "__main__" in file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = import_module(f"experiments.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])

    with pytest.raises(SystemExit, match="0"):
        module.main()

    assert "usage:" in capsys.readouterr().out


def test_a_mean_has_a_spread_only_over_several_values() -> None:
    assert mean_and_spread([0.5]) == "0.5000"
    assert mean_and_spread([0.0, 1.0]) == "0.5000 ± 0.71"


def test_outcomes_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no x\.parquet|no x\.parquet"):
        recorded(tmp_path, "x")


def test_intervals_have_one_line_for_each_method() -> None:
    saving = {"ci95": (0.1, 0.2), "quality_ci95": (-0.01, 0.01)}
    reports: dict[str, dict[str, object]] = {
        "knn": {"quality_gain_ci95": (0.01, 0.02), "cost_saved_at_equal_quality": saving},
        "elo": {"quality_gain_ci95": (-0.01, 0.0), "cost_saved_at_equal_quality": None},
    }

    text = tables.intervals(reports)

    assert (
        "- knn: relative quality gain +1.00 to +2.00 %; saving 10.0 to 20.0 % at -1.00 to +1.00 points."
        in text
    )
    assert "- elo: relative quality gain -1.00 to +0.00 %." in text


def test_the_work_of_an_encoder_grows_with_its_tokens() -> None:
    shape = {"num_hidden_layers": 6, "hidden_size": 384, "intermediate_size": 1536}

    one, two = encoder_roofline.work(shape, 1, 32), encoder_roofline.work(shape, 2, 32)

    assert two[0] == 2 * one[0]
    assert one[1] < two[1] < 2 * one[1]


def test_made_up_outcomes_have_unit_embeddings_and_every_expert() -> None:
    dataset, embeddings = speed.made(50)

    assert embeddings.shape == (50, DEFAULT.dimension)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)
    assert len(dataset.pool) == speed.EXPERTS


def test_queries_of_the_routing_step_differ() -> None:
    rng = random.Random(0)

    assert len({a_query(rng) for _ in range(100)}) == 100


def test_an_interval_covers_its_mean() -> None:
    assert leave_one_out._interval([[1.0, 1.0], [1.0, 1.0]], 2) == "+1.00 (+1.00 to +1.00)"


async def test_the_constant_routers_always_decide_the_same() -> None:
    request = RouteRequest("anything")

    response = await ingress_alone.ConstantRouter().decide(request, 1.0)

    assert response.decision is ingress_alone.DECISION
    router = constant_router.Router.__new__(constant_router.Router)
    assert [one.decision for one in await router.decide([request])] == [constant_router.DECISION]
    assert constant_router.DECISION.ranking == constant_router.NAMES
