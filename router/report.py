"""Write what `evaluation` found: report.json, report.md, pictures, and a policy's card."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from router import metrics
from router.evaluation import Judged
from router.policy import Policy

INK, PALE, ACCENT = "#1f2430", "#9aa3b2", "#c2410c"


def write_report(folder: Path, judged: Judged, figures: Mapping[str, Any]) -> None:
    """report.json, report.md, curve.png, reliability.png, traffic.png into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(as_markdown(figures), encoding="utf-8")
    plot_curve(folder / "curve.png", figures)
    plot_reliability(folder / "reliability.png", judged)
    plot_winners(folder / "traffic.png", judged, figures)


def as_markdown(figures: Mapping[str, Any]) -> str:
    """The report for people."""
    saved = figures["cost_saved_at_equal_quality"]
    rows = [("random", figures["random"])]
    rows += [(name, expert) for name, expert in figures["experts"].items()]
    rows += [(f"best single ({figures['best_single']['name']})", figures["best_single"])]
    if figures["told_the_task"]:
        rows.append(("told the true task", figures["told_the_task"]))
    rows += [("**this policy**", figures["policy"]), ("oracle", figures["oracle"])]
    lines = [
        f"# Policy {figures['policy_id']} ({figures['method']}) on {figures['n_queries']} queries",
        "",
        "| | quality | US$ per 1,000 queries |",
        "|---|---|---|",
        *(f"| {name} | {_three(row['quality'])} | {_per_thousand(row['cost_usd'])} |" for name, row in rows),
        "",
        f"- Quality at cost_weight 0 against the best single expert: {figures['quality_gain_points']:+.4f} "
        f"(relative {figures['quality_gain']:+.2%}, 95 % {_range(figures['quality_gain_ci95'])}).",
    ]
    if saved["saved"] is not None:
        lines.append(
            f"- Cost saved at the preference chosen in training (cost_weight {saved['cost_weight']:g}): "
            f"{saved['saved']:.1%} (95 % {_range(saved['ci95'])}), quality {saved['quality']:.4f} "
            f"({saved['quality_against_best_single']:+.4f} against the best single)."
        )
        lines.append(f"- AIQ {figures['aiq']:.4f}; zero router {figures['zero_router_aiq']:.4f}.")
    if figures["apgr"] is not None:
        lines.append(
            f"- APGR {figures['apgr']:.3f}, CPT50 {_three(figures['cpt50'])}, "
            f"CPT80 {_three(figures['cpt80'])}."
        )
    worst = max(figures["calibration"].values())
    lines.append(f"- Calibration: expected error at most {worst:.3f} for any expert.")
    lines.append(f"- Unfamiliar queries, answered by the pool's means: {figures['unfamiliar']:.2%}.")
    if figures["n_dropped"]:
        lines.append(f"- {figures['n_dropped']} queries were left out: an expert's outcome is missing.")
    lines += ["", "Share of traffic at the default preference:", ""]
    lines += [f"- {name}: {share:.1%}" for name, share in figures["traffic"].items()]
    return "\n".join(lines) + "\n"


def card(policy: Policy, notes: Sequence[str] = ()) -> str:
    """A policy's CARD.md: what it is, from what, how good, how to use it."""
    training = policy.training
    chosen = training.get("out_of_fold", {})
    lines = [
        "# Routing policy",
        "",
        f"Scores {len(policy.pool)} experts for a query and weighs quality against cost.",
        "",
        f"- Method: {policy.method.name}, parameters {json.dumps(policy.method.params)}",
        f"- Encoder: {policy.encoder.id} ({policy.encoder.sha256[:12]})",
        f"- Candidate pool, in column order: {', '.join(policy.pool.names)}",
        f"- Trained on {training.get('n_queries')} queries (data {str(training.get('data_sha256'))[:12]}, "
        f"seed {training.get('seed')})",
        f"- Best single expert on the training data: {training.get('best_single')}",
        f"- Default preference: cost_weight {policy.preferences.cost_weight}",
    ]
    if "gain" in chosen:
        lines.append(
            f"- Out of fold at that preference: quality {chosen['gain']:+.4f} against the best single "
            f"expert, cost {chosen['saved']:+.1%} saved"
        )
    lines += [
        "",
        "## Experts",
        "",
        "| expert | mean quality in training | US$ per million tokens in / out |",
        "|---|---|---|",
    ]
    for expert in policy.pool:
        price = "unknown" if expert.price is None else f"{expert.price.input:g} / {expert.price.output:g}"
        lines.append(
            f"| {expert.name} | {_three(training.get('expert_means', {}).get(expert.name))} | {price} |"
        )
    lines += [
        "",
        "## Use",
        "",
        "Name this folder as `policy` in the `user_config` of the deployment `Router`, or ask it directly: "
        '`to-router route --policy DIR "a query"`.',
        "No query text is stored in it.",
    ]
    return "\n".join([*lines, *notes]) + "\n"


def plot_curve(file: Path, figures: Mapping[str, Any]) -> None:
    """Cost against quality: the policy's curve, single experts, zero router's hull, oracle."""
    figure, axes = new_figure(7.0, 4.6)
    experts = figures["experts"]
    priced = figures["aiq"] is not None
    costs = {name: 1000 * (expert["cost_usd"] or 0.0) for name, expert in experts.items()}
    axes.scatter(list(costs.values()), [e["quality"] for e in experts.values()], color=PALE, zorder=2)
    for name, expert in experts.items():
        axes.annotate(
            name,
            (costs[name], expert["quality"]),
            xytext=(5, -10),
            textcoords="offset points",
            fontsize=7,
            color=INK,
        )
    if priced:
        x, y = metrics.hull(
            np.array(list(costs.values())), np.array([e["quality"] for e in experts.values()])
        )
        axes.plot(x, y, "--", color=PALE, label="zero router (hull of single experts)")
        curve = figures["curve"]
        axes.plot(
            [1000 * point["cost_usd"] for point in curve], [point["quality"] for point in curve],
            "-", color=ACCENT, linewidth=2, label="this policy",
        )  # fmt: skip
        oracle = figures["oracle"]
        axes.scatter(
            [1000 * oracle["cost_usd"]], [oracle["quality"]], marker="*", s=110, color=INK, label="oracle"
        )
        chosen = figures["policy"]
        axes.scatter(
            [1000 * chosen["cost_usd"]], [chosen["quality"]],
            s=60, facecolors="white", edgecolors=ACCENT, linewidths=2, zorder=3, label="default preference",
        )  # fmt: skip
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("US$ per 1,000 queries")
    axes.set_ylabel("quality")
    save_figure(figure, file)


def plot_reliability(file: Path, judged: Judged) -> None:
    """Predicted against measured quality, a line for each expert."""
    figure, axes = new_figure(4.6, 4.6)
    axes.plot([0, 1], [0, 1], color=PALE, linewidth=1)
    for column, name in enumerate(judged.policy.pool.names):
        bins = metrics.reliability(judged.scores[:, column], judged.quality[:, column])
        axes.plot(
            [b[0] for b in bins], [b[1] for b in bins], marker="o", markersize=3, linewidth=1, label=name
        )
    axes.set_xlabel("predicted quality")
    axes.set_ylabel("measured quality")
    axes.legend(frameon=False, fontsize=7)
    save_figure(figure, file)


def plot_winners(file: Path, judged: Judged, figures: Mapping[str, Any]) -> None:
    """Who wins where: the share of each task that goes to each expert, or of all traffic."""
    names = judged.policy.pool.names
    chosen = judged.choices(judged.policy.preferences)
    tasks = np.array(judged.dataset.tasks or ("all",) * len(chosen))
    rows = sorted(set(tasks.tolist()))
    shares = np.array([[(chosen[tasks == task] == c).mean() for c in range(len(names))] for task in rows])
    figure, axes = new_figure(1.6 + 0.55 * len(names), 1.4 + 0.32 * len(rows))
    axes.imshow(shares, cmap="Oranges", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    for (y, x), share in np.ndenumerate(shares):
        if share >= 0.005:
            axes.text(
                x,
                y,
                f"{share:.0%}",
                ha="center",
                va="center",
                fontsize=6,
                color="white" if share > 0.6 else INK,
            )
    save_figure(figure, file)


def new_figure(width: float, height: float) -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes


def save_figure(figure: Any, file: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _per_thousand(value: float | None) -> str:
    return "–" if value is None else f"{1000 * value:.4g}"


def _range(values: Sequence[float] | None) -> str:
    return "–" if values is None else f"{values[0]:+.2%} to {values[1]:+.2%}"
