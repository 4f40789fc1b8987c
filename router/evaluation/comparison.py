"""Several methods on the same splits: train and evaluate them, one table with the baselines."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from router.data.dataset import Dataset, split_by_query
from router.errors import InputError
from router.evaluation import plots
from router.evaluation.evaluate import judge, report
from router.evaluation.report import as_json
from router.files import completed_files
from router.plans.plan import Plan
from router.training.encoder_choice import Encoded, train_choosing
from router.training.train import check_trainable

COLUMNS = {
    "quality": "quality, cost_weight 0",
    "cost_usd": "US$ per 1,000 queries",
    "gain_points": "points over best single",
    "aiq": "AIQ",
    "saved": "cost saved at equal quality",
    "quality_at_saved": "points over best single then",
    "ece": "worst ECE",
    "apgr": "APGR",
    "cpt50": "CPT50",
    "cpt80": "CPT80",
}
"""Figure → its heading; a baseline has the first four."""
Table = dict[str, dict[str, list[float | None]]]


def compare(
    dataset: Dataset,
    encoders: Mapping[str, Sequence[Encoded]],
    *,
    methods: Sequence[str],
    seeds: Iterable[int],
    test_fraction: float = 0.3,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    plans: Sequence[Plan] | Literal["auto", "none"] = "none",
    notify: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train and evaluate every method with every encoder on every split; all is chosen on the training part.

    Args:
        dataset: outcomes.
        encoders: name → the encoders that training chooses from, with their embeddings of all queries.
        methods: registered names.
        seeds: one for each split.
        test_fraction: share of the queries to test on.
        params: method → its constructor arguments.
        plans: as of `train`.
        notify: called with a line for each result.

    Returns:
        `{"splits", "n_test", "baselines": {name: {figure: [a value for each split]}}, "methods": the
        same, "reports": {method: figures of the last split}, "encoders": {method: [id for each split]}}`.
        With several encoders a method's name has its encoder's in brackets.

    Raises:
        InputError: as `check_comparable`.
    """
    seeds, given = list(seeds), params or {}
    check_comparable(dataset, methods=methods, seeds=seeds, test_fraction=test_fraction, params=params)
    found: Table = {}
    baselines: Table = {}
    reports: dict[str, Any] = {}
    taken: dict[str, list[str]] = {}
    for seed in seeds:
        inside, outside = split_by_query(dataset.texts, fraction=test_fraction, seed=seed)
        for method, (label, candidates) in product(methods, encoders.items()):
            policy = train_choosing(
                dataset.take(inside),
                [one.take(inside) for one in candidates],
                method=method,
                params=given.get(method),
                seed=seed,
                plans=plans,
            )
            (used,) = (one for one in candidates if one.spec == policy.encoder)
            figures = report(judge(policy, dataset.take(outside), used.embeddings[outside]))
            name = method if len(encoders) == 1 else f"{method} ({label})"
            _note(found, name, _figures(figures))
            reports[name] = figures
            taken.setdefault(name, []).append(policy.encoder.id)
            notify(
                f"split {seed}: {name}: quality {figures['curve'][0]['quality']:.4f}, aiq {figures['aiq']}"
            )
        for name, row in _baselines(next(iter(reports.values()))).items():
            _note(baselines, name, row)
    n_test = next(iter(reports.values()))["n_queries"]
    return {
        "splits": seeds,
        "n_test": n_test,
        "baselines": baselines,
        "methods": found,
        "reports": reports,
        "encoders": taken,
    }


def check_comparable(
    dataset: Dataset,
    *,
    methods: Sequence[str],
    seeds: Iterable[int],
    test_fraction: float,
    params: Mapping[str, Mapping[str, Any]] | None,
) -> None:
    """Check the arguments of `compare`, before the expensive encoding.

    Raises:
        InputError: no method is named, one or its parameters are invalid, the test part is not a fraction, or
            the training part of a split is too small.
    """
    seeds, given = list(seeds), params or {}
    if not methods or not seeds:
        raise InputError("a comparison needs at least one method and one split")
    if not 0 < test_fraction < 1:
        raise InputError(f"the test part must be a fraction between 0 and 1, found {test_fraction}")
    for name in methods:
        for seed in seeds:
            inside, _ = split_by_query(dataset.texts, fraction=test_fraction, seed=seed)
            check_trainable(dataset.take(inside), method=name, params=given.get(name))


def as_markdown(found: Mapping[str, Any]) -> str:
    """One table: means over the splits, ± standard deviation where there are several."""
    rows = {**found["baselines"], **{f"**{name}**": row for name, row in found["methods"].items()}}
    shown = [figure for figure in COLUMNS if any(_known(row.get(figure)) for row in rows.values())]
    lines = [
        f"{len(found['splits'])} split(s), seeds {', '.join(map(str, found['splits']))}; "
        f"{found['n_test']} test queries in the last.",
        "",
        "| | " + " | ".join(COLUMNS[figure] for figure in shown) + " |",
        "|---" * (len(shown) + 1) + "|",
    ]
    lines += [
        f"| {name} | " + " | ".join(_cell(row.get(figure), figure) for figure in shown) + " |"
        for name, row in rows.items()
    ]
    return "\n".join(lines) + "\n"


def write_comparison(folder: Path, found: Mapping[str, Any]) -> None:
    """comparison.json, comparison.md and comparison.png into `folder`, all or none."""
    with completed_files(folder) as making:
        (making / "comparison.md").write_text(as_markdown(found), encoding="utf-8")
        plots.plot_curves(making / "comparison.png", found["reports"])
        (making / "comparison.json").write_text(as_json(found) + "\n", encoding="utf-8")


def _figures(figures: Mapping[str, Any]) -> dict[str, float | None]:
    saved = figures["cost_saved_at_equal_quality"]
    return {
        "quality": figures["curve"][0]["quality"],
        "cost_usd": figures["curve"][0]["cost_usd"],
        "gain_points": 100 * figures["quality_gain_points"],
        "aiq": figures["aiq"],
        "saved": saved["saved"],
        "quality_at_saved": None if saved["saved"] is None else 100 * saved["quality_against_best_single"],
        "ece": max(figures["calibration"].values()),
        "apgr": figures["apgr"],
        "cpt50": figures["cpt50"],
        "cpt80": figures["cpt80"],
    }


def _baselines(figures: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Each baseline's quality, cost, points over the best single expert, and AIQ where it has one."""
    rows = {"random": figures["random"], **figures["experts"], "best single": figures["best_single"]}
    if figures["told_the_task"]:
        rows["told the true task"] = figures["told_the_task"]
    rows["oracle"] = figures["oracle"]
    single = figures["best_single"]["quality"]
    found = {
        name: {
            "quality": row["quality"],
            "cost_usd": row["cost_usd"],
            "gain_points": 100 * (row["quality"] - single),
            "aiq": row.get("aiq"),
        }
        for name, row in rows.items()
    }
    found["zero router"] = {"aiq": figures["zero_router_aiq"]}
    return found


def _note(table: Table, name: str, row: Mapping[str, float | None]) -> None:
    for figure, value in row.items():
        table.setdefault(name, {}).setdefault(figure, []).append(value)


def _known(values: Sequence[float | None] | None) -> list[float]:
    return [value for value in values or () if value is not None]


def _cell(values: Sequence[float | None] | None, figure: str) -> str:
    known = _known(values)
    if not known:
        return "–"
    if figure == "cost_usd":
        known = [1000 * value for value in known]
    mean = f"{np.mean(known):.4g}" if figure == "cost_usd" else f"{np.mean(known):.4f}"
    return mean if len(known) == 1 else f"{mean} ± {np.std(known, ddof=1):.2g}"
