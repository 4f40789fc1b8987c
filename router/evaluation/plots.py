"""The plots of a report, from figures to PNG files; matplotlib is imported when one is drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from router.errors import InputError
from router.evaluation import metrics
from router.evaluation.evaluate import EvaluatedPolicy
from router.methods.hull import hull

INK, PALE = "#1f2430", "#9aa3b2"
LINES = ("#c2410c", "#1d4ed8", "#047857", "#7c3aed", "#b45309", "#be185d", "#0e7490", "#4d7c0f")
CROWDED = 12
"""More experts than this are drawn without their names where names would cover each other."""
FEW = 10
"""Queries of a bin below which its point of a reliability diagram is left out."""


def plot_curves(file: Path, reports: Mapping[str, Mapping[str, Any]]) -> None:
    """Cost against quality: a curve for each report, the single experts, zero router's hull and oracle.

    Args:
        file: the PNG file to write.
        reports: label → figures of `evaluation.report`, all on the same outcomes.
    """
    figures = next(iter(reports.values()))
    if any(values["aiq"] is None for values in reports.values()):
        _plot_bars(file, reports)
        return
    figure, axes = _new_figure(7.4, 4.8)
    experts = {name: one for name, one in figures["experts"].items() if not one.get("plan")}
    cost = np.array([1000 * expert["cost_usd"] for expert in experts.values()])
    quality = np.array([expert["quality"] for expert in experts.values()])
    x, y = hull(cost, quality)
    along = np.geomspace(
        max(cost.min(), 1e-9), cost.max(), 400
    )  # a mixture is no straight line on a log axis
    axes.plot(along, np.interp(along, x, y), "--", color=PALE, label="zero router (hull of single experts)")
    axes.scatter(cost, quality, color=PALE, zorder=2)
    _name_points(axes, list(experts), cost, quality)
    for color, (label, values) in zip(
        LINES * (1 + len(reports) // len(LINES)), reports.items(), strict=False
    ):
        points = sorted((1000 * point["cost_usd"], point["quality"]) for point in values["curve"])
        axes.plot([p[0] for p in points], [p[1] for p in points], color=color, linewidth=2, label=label)
        axes.scatter(
            [1000 * values["policy"]["cost_usd"]], [values["policy"]["quality"]],
            s=48, facecolors="white", edgecolors=color, linewidths=2, zorder=4,
        )  # fmt: skip
    for name, marker in (("random", "x"), ("told_the_task", "D"), ("oracle", "*")):
        point = figures[name]
        if point:
            axes.scatter(
                [1000 * point["cost_usd"]], [point["quality"]],
                marker=marker, s=70, color=INK, zorder=3, label=name.replace("_", " "),
            )  # fmt: skip
    axes.set_xscale("log")
    _plain_ticks(axes)
    axes.set_xlabel("US$ per 1,000 queries (log); white circles: default preference")
    axes.set_ylabel("quality")
    # Below the axes: inside it would cover an expert's name.
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
    _save_figure(figure, file)


def plot_reliability(file: Path, judged: EvaluatedPolicy) -> None:
    """Predicted against measured quality, a line for each expert; the diagonal is perfect."""
    figure, axes = _new_figure(5.0, 4.8)
    axes.plot([0, 1], [0, 1], color=PALE, linewidth=1)
    names = judged.names
    for column, name in enumerate(names):
        found = metrics.reliability(judged.scores[:, column], judged.quality[:, column])
        bins = [one for one in found if one[2] >= FEW]  # the mean of fewer is noise
        axes.plot(
            [b[0] for b in bins], [b[1] for b in bins],
            color=LINES[column % len(LINES)], linestyle=("-", "--", ":")[column // len(LINES) % 3],
            marker="o", markersize=3, linewidth=1, label=name,
        )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted quality", ylabel="measured quality")
    if len(names) <= CROWDED:
        axes.legend(frameon=False, fontsize=7, loc="lower right")
    _save_figure(figure, file)


def plot_traffic(file: Path, figures: Mapping[str, Any]) -> None:
    """Share of the traffic that each expert gets at the default preference, largest first."""
    shares = sorted(figures["traffic"].items(), key=lambda item: item[1])
    figure, axes = _new_figure(5.6, 1.0 + 0.28 * len(shares))
    bars = axes.barh([name for name, _ in shares], [share for _, share in shares], color=LINES[1])
    axes.bar_label(bars, [f"{share:.1%}" for _, share in shares], padding=3, fontsize=7)
    axes.set(xlim=(0, 1.1), xlabel="share of traffic at the default preference")
    _save_figure(figure, file)


def plot_winners(file: Path, judged: EvaluatedPolicy) -> None:
    """For each task, the share of its queries that each expert gets."""
    names = judged.names
    chosen = judged.choices(judged.policy.preferences)
    tasks = np.array(judged.dataset.tasks or ("all",) * len(chosen))
    rows = sorted(set(tasks.tolist()), key=lambda task: -int((tasks == task).sum()))[:40]
    shares = np.array([[(chosen[tasks == task] == c).mean() for c in range(len(names))] for task in rows])
    figure, axes = _new_figure(2.2 + 0.55 * len(names), 1.6 + 0.32 * len(rows))
    axes.imshow(shares, cmap="Oranges", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    for (y, x), share in np.ndenumerate(shares):
        if share >= 0.005:
            color = "white" if share > 0.6 else INK
            axes.text(x, y, f"{share:.0%}", ha="center", va="center", fontsize=6, color=color)
    _save_figure(figure, file)


def _plot_bars(file: Path, reports: Mapping[str, Mapping[str, Any]]) -> None:
    """Quality alone, where cost is unknown or equal for all experts."""
    figures = next(iter(reports.values()))
    rows = {name: expert["quality"] for name, expert in figures["experts"].items()}
    rows |= {label: values["curve"][0]["quality"] for label, values in reports.items()}
    rows["oracle"] = figures["oracle"]["quality"]
    figure, axes = _new_figure(6.4, 1.0 + 0.28 * len(rows))
    colors = [LINES[0] if name in reports else PALE for name in rows]
    bars = axes.barh(list(rows), list(rows.values()), color=colors)
    axes.bar_label(bars, [f"{value:.3f}" for value in rows.values()], padding=3, fontsize=7)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.1), xlabel="quality")
    _save_figure(figure, file)


def _name_points(axes: Any, names: Sequence[str], x: Any, y: Any) -> None:
    for name, at_x, at_y in zip(names, x, y, strict=True):
        axes.annotate(
            name, (at_x, at_y), xytext=(5, -9), textcoords="offset points",
            fontsize=7 if len(names) <= CROWDED else 5, color=INK,
        )  # fmt: skip


def _plain_ticks(axes: Any) -> None:
    """0.05, 0.1, 0.2 instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _new_figure(width: float, height: float) -> Any:
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes


def _save_figure(figure: Any, file: Path) -> None:
    figure.savefig(file, dpi=150)


def require_matplotlib() -> None:
    """Check for matplotlib before a long command starts.

    Raises:
        InputError: matplotlib is not installed.
    """
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise InputError("plots need matplotlib: install to-router[train]")
