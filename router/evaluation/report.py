"""Write an evaluation: report.json for programs, report.md and plots for people."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from router.evaluation import plots
from router.evaluation.evaluate import EvaluatedPolicy
from router.files import completed_files


def write_report(folder: Path, judged: EvaluatedPolicy, figures: Mapping[str, Any]) -> None:
    """Write report.json, report.md, curve.png, reliability.png, traffic.png, winners.png into `folder`."""
    with completed_files(folder) as making:
        (making / "report.md").write_text(as_markdown(figures), encoding="utf-8")
        plots.plot_curves(making / "curve.png", {figures["method"]: figures})
        plots.plot_reliability(making / "reliability.png", judged)
        plots.plot_traffic(making / "traffic.png", figures)
        plots.plot_winners(making / "winners.png", judged)
        (making / "report.json").write_text(as_json(figures) + "\n", encoding="utf-8")


def as_json(figures: Mapping[str, Any]) -> str:
    """Figures as JSON; a ratio to zero (a free expert, two equal experts) is null."""
    return json.dumps(_finite(figures), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_markdown(figures: Mapping[str, Any]) -> str:
    """The report for people."""
    rows = [("random", figures["random"])]
    rows += [(name, expert) for name, expert in figures["experts"].items()]
    rows += [(f"best single ({figures['best_single']['name']})", figures["best_single"])]
    if figures["told_the_task"]:
        rows.append(("true task known, cost_weight 0", figures["told_the_task"]))
    rows.append(("**this policy, cost_weight 0**", figures["curve"][0]))
    rows.append((f"**this policy, {_as_words(figures['policy']['preferences'])}**", figures["policy"]))
    rows.append(("oracle", figures["oracle"]))
    lines = [
        f"# Policy {figures['policy_id']} ({figures['method']}) on {figures['n_queries']} queries",
        "",
        "| | quality | US$ per 1,000 queries |",
        "|---|---|---|",
        *(f"| {name} | {four(row['quality'])} | {per_thousand(row['cost_usd'])} |" for name, row in rows),
        "",
        *(f"- {line}" for line in _findings(figures)),
        "",
        "Share of traffic at the default preference:",
        "",
        *(f"- {name}: {share:.1%}" for name, share in figures["traffic"].items()),
    ]
    if figures["paper"]:
        lines += ["", "| measured | this policy | best single | random |", "|---|---|---|---|"]
        lines += [
            f"| {name} | {four(row['policy'])} | {four(row['best_single'])} | {four(row['random'])} |"
            for name, row in figures["paper"].items()
        ]
    return "\n".join(lines) + "\n"


def _findings(figures: Mapping[str, Any]) -> Iterator[str]:
    saved = figures["cost_saved_at_equal_quality"]
    if figures["quality_gain"] is not None:
        yield (
            f"Quality at cost_weight 0 against the best single expert: {figures['quality_gain_points']:+.4f} "
            f"(relative {figures['quality_gain']:+.2%}, 95 % {_range(figures['quality_gain_ci95'])})."
        )
    if saved["saved"] is not None:
        weight = saved["cost_weight"]
        chosen = "none was safe: the best single expert" if weight is None else f"cost_weight {weight:g}"
        yield (
            f"Cost saved at the preference chosen in training ({chosen}): "
            f"{saved['saved']:.1%} (95 % {_range(saved['ci95'])}), quality {saved['quality']:.4f} "
            f"({saved['quality_against_best_single']:+.4f} against the best single expert, "
            f"95 % {_range(saved['quality_ci95'])})."
        )
    if figures["aiq"] is not None:
        yield f"AIQ {figures['aiq']:.4f}; zero router {figures['zero_router_aiq']:.4f}."
    if figures["apgr"] is not None:
        yield f"APGR {figures['apgr']:.3f}, CPT50 {four(figures['cpt50'])}, CPT80 {four(figures['cpt80'])}."
    yield f"Calibration: expected error at most {max(figures['calibration'].values()):.3f} for any expert."
    yield f"Unfamiliar queries, answered by the pool's means: {figures['unfamiliar']:.2%}."
    if figures["n_dropped"]:
        yield f"{figures['n_dropped']} queries were left out: an expert's outcome or cost is missing."


def four(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def per_thousand(value: float | None) -> str:
    return "–" if value is None else f"{1000 * value:.4g}"


def _as_words(preferences: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in preferences.items()) or "no preference"


def _range(values: Sequence[float] | None) -> str:
    return "–" if values is None else f"{values[0]:+.2%} to {values[1]:+.2%}"
