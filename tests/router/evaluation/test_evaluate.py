"""A report holds what it must, and its figures are what was measured."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.core import Preferences, QueryBatch, RouteRequest
from router.data.dataset import Dataset, to_dataset
from router.encoders import EncoderSpec
from router.errors import InputError, MethodError, OutcomesError, PoolError
from router.evaluation.comparison import as_markdown as compared
from router.evaluation.comparison import compare, write_comparison
from router.evaluation.evaluate import judge, report
from router.evaluation.examples import examples
from router.evaluation.report import as_markdown, write_report
from router.files import completed_files
from router.policy import Policy
from router.training.card import card
from router.training.encoder_choice import Encoded
from router.training.train import train
from tests.router.data_sets import POOL, dataset, embeddings, rows

SPEC = EncoderSpec("test", "0" * 64, 16, 128)


def encoders(data: Dataset) -> dict[str, list[Encoded]]:
    return {"made up": [Encoded(SPEC, embeddings(data.texts))]}


FIELDS = {
    *("n_queries", "experts", "best_single", "random", "oracle", "policy", "curve", "aiq"),
    *("zero_router_aiq", "quality_gain", "cost_saved_at_equal_quality", "apgr", "cpt50", "cpt80"),
    "calibration",
}


@pytest.fixture(scope="module")
def policy() -> Policy:
    data = dataset(300)
    return train(data, embeddings(data.texts), SPEC, method="knn", seed=0)


@pytest.fixture(scope="module")
def fresh() -> Dataset:
    return dataset(400, seed=9)


@pytest.fixture(scope="module")
def figures(policy: Policy, fresh: Dataset) -> dict[str, Any]:
    return reported(policy, fresh)


def reported(policy: Policy, data: Dataset) -> dict[str, Any]:
    return report(judge(policy, data, embeddings(data.texts)))


def test_a_report_holds_every_field_of_the_contract(figures: dict[str, Any]) -> None:
    assert figures.keys() >= FIELDS
    assert figures["n_queries"] == 400
    assert set(figures["experts"]) == set(POOL.names)
    for name in ("policy", "random", "oracle"):
        assert figures[name].keys() >= {"quality", "cost_usd"}
    assert figures["best_single"].keys() == {"name", "quality", "cost_usd"}
    assert figures["cost_saved_at_equal_quality"].keys() >= {"cost_weight", "saved", "quality", "ci95"}
    assert len(figures["quality_gain_ci95"]) == len(figures["cost_saved_at_equal_quality"]["ci95"]) == 2
    assert all(point.keys() == {"cost_weight", "quality", "cost_usd"} for point in figures["curve"])
    assert figures["curve"][0]["cost_weight"] == 0
    assert set(figures["calibration"]) == set(POOL.names)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_its_figures_are_the_measured_ones(policy: Policy, fresh: Dataset, figures: dict[str, Any]) -> None:
    paid = fresh.costs_usd
    assert paid is not None

    assert figures["best_single"]["name"] == "large"
    assert figures["experts"]["sums"]["quality"] == pytest.approx(fresh.quality[:, 0].mean())
    assert figures["experts"]["large"]["cost_usd"] == pytest.approx(paid[:, 2].mean())
    assert figures["random"]["quality"] == pytest.approx(fresh.quality.mean())
    assert figures["oracle"]["quality"] == pytest.approx(fresh.quality.max(axis=1).mean())
    low, high = figures["quality_gain_ci95"]
    assert low < figures["quality_gain"] < high
    saved = figures["cost_saved_at_equal_quality"]
    assert saved["ci95"][0] < saved["saved"] < saved["ci95"][1]


def test_the_report_decides_as_the_served_policy_does(
    policy: Policy, fresh: Dataset, figures: dict[str, Any]
) -> None:
    batch = QueryBatch(fresh.texts, embeddings(fresh.texts))
    for weight in (0.0, figures["curve"][20]["cost_weight"]):
        served = policy.decide(
            batch, [RouteRequest(text, Preferences(cost_weight=weight)) for text in fresh.texts]
        )
        chosen = [policy.pool.column(decision.expert) for decision in served]  # type: ignore[union-attr]
        (point,) = [p for p in figures["curve"] if p["cost_weight"] == weight]
        assert point["quality"] == pytest.approx(fresh.quality[np.arange(len(fresh)), chosen].mean())


def test_the_router_beats_its_baselines(figures: dict[str, Any]) -> None:
    assert figures["quality_gain_ci95"][0] > 0
    assert figures["aiq"] > figures["zero_router_aiq"]
    assert figures["cost_saved_at_equal_quality"]["saved"] > 0.5
    assert max(figures["calibration"].values()) < 0.12
    assert sum(figures["traffic"].values()) == pytest.approx(1)
    assert figures["told_the_task"]["aiq"] > figures["zero_router_aiq"]


def test_where_no_preference_was_safe_the_best_single_expert_is_judged(
    policy: Policy, fresh: Dataset
) -> None:
    facts = {**policy.training, "equal_quality_cost_weight": None}
    found = reported(replace(policy, training=facts), fresh)
    saved = found["cost_saved_at_equal_quality"]

    assert saved["saved"] == saved["quality_against_best_single"] == 0
    assert saved["quality"] == pytest.approx(found["best_single"]["quality"])
    assert "the best single expert" in as_markdown(found)


def test_without_costs_the_cost_fields_alone_are_null() -> None:
    data = to_dataset([{**row, "completion_tokens": None, "prompt_tokens": None} for row in rows(200)])
    found = reported(train(data, embeddings(data.texts), SPEC, method="knn"), data)

    assert found["aiq"] is found["zero_router_aiq"] is found["policy"]["cost_usd"] is None
    assert found["oracle"]["cost_usd"] is found["cost_saved_at_equal_quality"]["saved"] is None
    assert [point["cost_weight"] for point in found["curve"]] == [0.0]
    assert found["quality_gain"] > 0
    assert found.keys() >= FIELDS
    assert "US$" in as_markdown(found)


def test_incomplete_queries_are_dropped_and_counted(policy: Policy) -> None:
    made = [
        row for row in rows(50, seed=3) if not (row["expert"] == "words" and row["query_id"] in {"q1", "q2"})
    ]
    found = reported(policy, to_dataset(made, pool=POOL))

    assert (found["n_queries"], found["n_dropped"]) == (48, 2)
    assert "2 queries were left out" in as_markdown(found)


def without_cost(data: Dataset, expert: str, *, queries: int) -> Dataset:
    costs = np.array(data.costs_usd)
    costs[:queries, data.pool.column(expert)] = np.nan
    return replace(data, measured={**data.measured, "cost_usd": costs})


def test_queries_of_unknown_cost_are_dropped_and_counted(policy: Policy, fresh: Dataset) -> None:
    found = reported(policy, without_cost(fresh, "words", queries=10))

    assert (found["n_queries"], found["n_dropped"]) == (390, 10)
    assert np.isfinite([point["cost_usd"] for point in found["curve"]]).all()
    assert 0 < found["aiq"] < 1
    assert "10 queries were left out: an expert's outcome or cost is missing" in as_markdown(found)


def test_where_no_query_has_all_costs_cost_is_unknown_and_the_report_is_written(
    policy: Policy, fresh: Dataset, tmp_path: Path
) -> None:
    judged = judge(policy, without_cost(fresh, "words", queries=400), embeddings(fresh.texts))
    found = report(judged)
    write_report(tmp_path / "r", judged, found)

    assert (found["n_queries"], found["n_dropped"]) == (400, 0)
    assert found["aiq"] is found["policy"]["cost_usd"] is found["experts"]["sums"]["cost_usd"] is None


def test_experts_of_one_cost_have_no_area_and_the_report_is_written(
    policy: Policy, fresh: Dataset, tmp_path: Path
) -> None:
    free = replace(fresh, measured={**fresh.measured, "cost_usd": np.zeros((400, 3))})
    judged = judge(policy, free, embeddings(fresh.texts))
    found = report(judged)
    write_report(tmp_path / "r", judged, found)

    assert found["aiq"] is found["zero_router_aiq"] is found["told_the_task"]["aiq"] is None
    assert found["policy"]["cost_usd"] == 0


def test_outcomes_that_cannot_evaluate_are_rejected(policy: Policy) -> None:
    with pytest.raises(PoolError, match="'large' is not in the candidate pool"):
        reported(policy, dataset(30).only(["sums", "words"]))
    scattered = [row for n, row in enumerate(rows(30)) if n % 3 != (n // 3) % 3]
    with pytest.raises(OutcomesError, match="nothing can be compared"):
        reported(policy, to_dataset(scattered, pool=POOL))


def test_two_experts_have_routellms_figures() -> None:
    data = dataset(400).only(["words", "large"])
    found = reported(train(data, embeddings(data.texts), SPEC, method="knn"), data)

    assert found["apgr"] > 0.8
    assert found["cpt50"] < found["cpt80"] <= 0.6


def test_two_experts_that_are_equal_have_no_gap_and_the_report_is_json(tmp_path: Path) -> None:
    made = [row | {"quality": 1.0} for row in rows(60) if row["expert"] in {"words", "large"}]
    data = to_dataset(made)
    judged = judge(train(data, embeddings(data.texts), SPEC, method="knn"), data, embeddings(data.texts))
    write_report(tmp_path / "report", judged, report(judged))
    found = json.loads((tmp_path / "report" / "report.json").read_text(), parse_constant=pytest.fail)

    assert found["apgr"] is None


def test_beside_a_free_best_single_expert_nothing_is_saved_of_nothing() -> None:
    free = [row | {"cost_usd": 0.0, "completion_tokens": None} for row in rows(60)]
    found = reported(
        train(to_dataset(free), embeddings(to_dataset(free).texts), SPEC, method="knn"), to_dataset(free)
    )

    assert found["cost_saved_at_equal_quality"]["saved"] is None


def test_the_papers_figures_appear_where_outcomes_hold_them(policy: Policy) -> None:
    made = [row | {"latency_s": 2.0, "ttft_s": 0.1, "nll": 1.5} for row in rows(60, seed=4)]
    found = reported(policy, to_dataset(made, pool=POOL))["paper"]

    assert found["nll"] == {"policy": 1.5, "best_single": 1.5, "random": 1.5}
    assert found["tokens_per_s"]["random"] == pytest.approx(
        np.mean([row["completion_tokens"] for row in made]) / 2
    )


def test_a_written_report_is_whole(policy: Policy, fresh: Dataset, tmp_path: Path) -> None:
    judged = judge(policy, fresh, embeddings(fresh.texts))
    write_report(tmp_path / "r", judged, report(judged))

    names = {file.name for file in (tmp_path / "r").iterdir()}
    assert names == {
        *("report.json", "report.md", "curve.png", "reliability.png", "traffic.png", "winners.png"),
    }
    assert [file.name for file in tmp_path.iterdir()] == ["r"]
    assert (tmp_path / "r" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "true task known" in (tmp_path / "r" / "report.md").read_text()


def half_written(folder: Path) -> None:
    with completed_files(folder) as making:
        (making / "a").write_text("half")
        raise RuntimeError("disk")


def test_when_writing_breaks_off_no_file_appears(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="disk"):
        half_written(tmp_path / "r")

    assert list((tmp_path / "r").iterdir()) == []
    assert [file.name for file in tmp_path.iterdir()] == ["r"]


def test_a_comparison_has_the_baselines_beside(tmp_path: Path) -> None:
    data = dataset(200)
    told: list[str] = []
    found = compare(data, encoders(data), methods=["fixed", "knn"], seeds=[0, 1], notify=told.append)
    write_comparison(tmp_path / "c", found)
    table = compared(found)

    assert set(found["methods"]) == {"fixed", "knn"}
    assert found["baselines"].keys() >= {
        *("random", "sums", "words", "large", "best single", "told the true task", "oracle", "zero router"),
    }
    assert all(len(values) == 2 for values in found["methods"]["knn"].values())
    assert np.mean(found["methods"]["knn"]["quality"]) > np.mean(found["methods"]["fixed"]["quality"])
    assert len(told) == 4
    assert "| **knn** |" in table
    assert {file.name for file in (tmp_path / "c").iterdir()} == {
        *("comparison.json", "comparison.md", "comparison.png"),
    }


def test_a_comparison_names_the_encoder_where_there_are_several() -> None:
    data = dataset(120)
    (one,) = encoders(data)["made up"]
    other = Encoded(replace(SPEC, id="other"), one.embeddings)
    found = compare(data, {"a": [one], "best": [other, one]}, methods=["knn"], seeds=[0, 1])

    assert set(found["methods"]) == {"knn (a)", "knn (best)"}
    assert found["methods"]["knn (a)"] == found["methods"]["knn (best)"]
    assert found["encoders"] == {"knn (a)": ["test", "test"], "knn (best)": ["other", "other"]}


def test_a_comparison_of_experts_without_a_gap_is_json(tmp_path: Path) -> None:
    data = dataset(100).only(["words", "large"])
    nothing = replace(data, measured={**data.measured, "quality": np.zeros((100, 2))})
    found = compare(nothing, encoders(data), methods=["fixed"], seeds=[0])
    write_comparison(tmp_path / "c", found)
    told = json.loads((tmp_path / "c" / "comparison.json").read_text(), parse_constant=pytest.fail)

    assert told["methods"]["fixed"]["apgr"] == [None]


def test_a_comparison_that_cannot_be_made_is_rejected_at_once() -> None:
    data = dataset(60)
    with pytest.raises(MethodError, match="unknown"):
        compare(data, encoders(data), methods=["knn", "nobodys"], seeds=[0])
    with pytest.raises(OutcomesError, match="20 different queries, found 19"):
        compare(data, encoders(data), methods=["knn"], seeds=[0], test_fraction=0.68)
    for options in ({"methods": []}, {"seeds": []}, {"test_fraction": 0.0}, {"test_fraction": 1.0}):
        given = {"methods": ["knn"], "seeds": [0], **options}
        with pytest.raises(InputError):
            compare(data, encoders(data), **given)


def test_a_card_describes_the_policy_to_a_stranger(policy: Policy) -> None:
    text = card(policy, ["", "A note."])

    for told in ("knn", "sums, words, large", "300 queries", "Best single expert", "0.05 / 0.1", "A note."):
        assert told in text
    assert "min_quality 0.9" in card(replace(policy, preferences=Preferences(min_quality=0.9)))


def test_reliability_and_winners_are_shares_of_what_was_judged(figures: dict[str, Any]) -> None:
    assert set(figures["reliability"]) == set(POOL.names)
    for bins in figures["reliability"].values():
        assert sum(one["n"] for one in bins) == figures["n_queries"]
        assert all(0 <= one["predicted"] <= 1 and 0 <= one["observed"] <= 1 for one in bins)
    assert sum(row["n"] for row in figures["winners"].values()) == figures["n_queries"]
    sent = dict.fromkeys(POOL.names, 0.0)
    for row in figures["winners"].values():
        assert sum(row["sent"].values()) == pytest.approx(1)
        assert max(row["experts"].values()) > 0
        for name, share in row["sent"].items():
            sent[name] += share * row["n"] / figures["n_queries"]
    assert sent == pytest.approx(figures["traffic"])


def test_examples_name_the_choice_and_the_best_of_each_task(policy: Policy, fresh: Dataset) -> None:
    judged = judge(policy, fresh, embeddings(fresh.texts))
    found = examples(judged, 2)

    tasks = [one["task"] for one in found]
    assert sorted(set(tasks)) == sorted(set(judged.dataset.tasks or ("all",)))
    assert max(map(tasks.count, tasks)) == 2
    chosen = judged.choices(policy.preferences)
    for one in found:
        row = judged.dataset.texts.index(one["query"])
        assert one["sent"] == judged.names[chosen[row]]
        best = judged.quality[row].max()
        assert {judged.quality[row, judged.names.index(name)] for name in one["best"]} == {best}
