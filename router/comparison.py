"""Several methods on the same splits: trained, judged and put into one table with the baselines."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from router.core import FloatArray
from router.data.dataset import Dataset, split_by_query
from router.encoders import EncoderSpec
from router.evaluation import judge, report
from router.training import train

FIGURES = (
    *("quality", "gain_points", "aiq", "zero_router_aiq", "saved", "quality_at_saved"),
    *("ece", "apgr", "cpt50", "cpt80"),
)


def compare(
    dataset: Dataset,
    embeddings: FloatArray,
    encoder: EncoderSpec,
    *,
    methods: Sequence[str],
    seeds: Iterable[int],
    test_fraction: float = 0.3,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train and judge every method on every split; everything is chosen on the training part.

    Returns `{"splits", "methods": {name: {figure: [value per split]}}, "baselines": {name: …}, "reports"}`.
    """
    found: dict[str, dict[str, list[float | None]]] = {name: {f: [] for f in FIGURES} for name in methods}
    baselines: dict[str, dict[str, list[float | None]]] = {}
    reports: dict[str, Any] = {}
    seeds = list(seeds)
    for seed in seeds:
        inside, outside = split_by_query(dataset.texts, fraction=test_fraction, seed=seed)
        for name in methods:
            policy = train(
                dataset.take(inside),
                embeddings[inside],
                encoder,
                method=name,
                params=(params or {}).get(name),
                seed=seed,
            )
            figures = report(judge(policy, dataset.take(outside), embeddings[outside]))
            for figure, value in _figures(figures).items():
                found[name][figure].append(value)
            reports[name] = figures
            tell(f"split {seed}: {name}: quality {figures['curve'][0]['quality']:.4f}, aiq {figures['aiq']}")
        _note_baselines(baselines, figures)
    return {"splits": seeds, "methods": found, "baselines": baselines, "reports": reports}


def as_markdown(found: Mapping[str, Any]) -> str:
    """One table: means over the splits, ± standard deviation where there are several."""
    lines = [
        f"{len(found['splits'])} split(s), seeds {', '.join(map(str, found['splits']))}.",
        "",
        "| | quality, cost_weight 0 | points over best single | AIQ | zero router's AIQ "
        "| saved at equal quality | quality then, points | worst ECE | APGR | CPT50 | CPT80 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found["baselines"].items():
        lines.append(f"| {name} | {_cell(row['quality'])} |" + " – |" * 9)
    lines += [
        f"| **{name}** | " + " | ".join(_cell(row[figure]) for figure in FIGURES) + " |"
        for name, row in found["methods"].items()
    ]
    return "\n".join(lines) + "\n"


def write_comparison(folder: Path, found: Mapping[str, Any]) -> None:
    """comparison.json, comparison.md and comparison.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (folder / "comparison.md").write_text(as_markdown(found), encoding="utf-8")
    _plot(folder / "comparison.png", found)


def _figures(figures: Mapping[str, Any]) -> dict[str, float | None]:
    saved = figures["cost_saved_at_equal_quality"]
    return {
        "quality": figures["curve"][0]["quality"],
        "gain_points": 100 * figures["quality_gain_points"],
        "aiq": figures["aiq"],
        "zero_router_aiq": figures["zero_router_aiq"],
        "saved": saved["saved"],
        "quality_at_saved": None if saved["saved"] is None else 100 * saved["quality_against_best_single"],
        "ece": max(figures["calibration"].values()),
        "apgr": figures["apgr"],
        "cpt50": figures["cpt50"],
        "cpt80": figures["cpt80"],
    }


def _note_baselines(baselines: dict[str, dict[str, list[float | None]]], figures: Mapping[str, Any]) -> None:
    rows = {"random": figures["random"], **figures["experts"], "best single": figures["best_single"]}
    if figures["told_the_task"]:
        rows["told the true task"] = figures["told_the_task"]
    rows["oracle"] = figures["oracle"]
    for name, row in rows.items():
        baselines.setdefault(name, {"quality": [], "cost_usd": []})
        baselines[name]["quality"].append(row["quality"])
        baselines[name]["cost_usd"].append(row["cost_usd"])


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{np.mean(known):.4f}"
    return mean if len(known) == 1 else f"{mean} ± {np.std(known, ddof=1):.4f}"


def _plot(file: Path, found: Mapping[str, Any]) -> None:
    """The cost–quality curves of the last split, all methods."""
    from router.report import INK, PALE, new_figure, save_figure

    figure, axes = new_figure(7.0, 4.6)
    for name, figures in found["reports"].items():
        if figures["aiq"] is None:
            axes.bar(name, figures["curve"][0]["quality"])
            continue
        curve = figures["curve"]
        axes.plot([1000 * p["cost_usd"] for p in curve], [p["quality"] for p in curve], label=name)
    experts = next(iter(found["reports"].values()))["experts"]
    if all(expert["cost_usd"] is not None for expert in experts.values()):
        costs = [1000 * expert["cost_usd"] for expert in experts.values()]
        axes.scatter(costs, [expert["quality"] for expert in experts.values()], color=PALE)
        for name, expert in experts.items():
            axes.annotate(name, (1000 * expert["cost_usd"], expert["quality"]), fontsize=7, color=INK)
        axes.set_xlabel("US$ per 1,000 queries")
        axes.legend(frameon=False, fontsize=8)
    axes.set_ylabel("quality")
    save_figure(figure, file)
