"""Report of a load: report.json for programs, report.md and plot.png for people.

Knows figures; nothing of their measurement.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from load_tests.load import Load

SPREADS = (
    ("ttft_ms", "time to first token"),
    ("tpot_ms", "time per output token"),
    ("gap_ms", "gap between arrivals"),
    ("e2e_ms", "end to end"),
)
POINTS = ("mean", "p50", "p90", "p99", "max")


def write_report(folder: Path, report: dict[str, Any], load: Load) -> None:
    """Write all three files into `folder`, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(report), encoding="utf-8")
    plot(folder / "plot.png", load)


def markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    figures = report["figures"]
    lines = [
        "# Load test",
        "",
        *(f"- {name}: {value}" for name, value in report["load"].items()),
        "",
        f"{figures['answered']} of {figures['requests']} requests succeeded in {figures['seconds']} s: "
        f"{figures['requests_per_s']} requests/s, {figures['output_tokens_per_s']} output tokens/s.",
    ]
    if "goodput" in figures:
        good = figures["goodput"]
        limits = ", ".join(f"{name} ≤ {limit:g}" for name, limit in good["limits"].items())
        lines.append(f"Goodput ({limits}): {good['requests_per_s']} requests/s, {good['fraction']:.1%}.")
    lines += [
        "",
        *table(("ms", *POINTS), [_row(figures, *spread) for spread in SPREADS if figures[spread[0]]]),
    ]
    lines += ["", *_counts("expert", figures["experts"]), *_counts("error", figures["errors"])]
    cpu = figures["client"]["cpu_fraction_of_a_core"]
    lines += [f"The client itself used {cpu:.0%} of a core.", ""]
    if report["missed"]:
        lines += ["Objectives missed:", "", *(f"- {line}" for line in report["missed"]), ""]
    elif report["slo"]:
        lines += [f"All objectives of {report['slo']} met.", ""]
    return "\n".join(lines)


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]


def plot(file: Path, load: Load) -> None:
    """Plot the times over the run, and their distribution."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    done = [outcome for outcome in load.outcomes if outcome.ok]
    failed = [outcome.sent_at - load.started_at for outcome in load.outcomes if not outcome.ok]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    series = [("end to end", [(outcome.sent_at - load.started_at, outcome.e2e_s * 1000) for outcome in done])]
    if any(outcome.streamed for outcome in done):
        first = [(o.sent_at - load.started_at, o.ttft_s * 1000) for o in done if o.streamed]
        series.insert(0, ("first token", first))
    for name, points in series:
        if points:
            left.scatter(*zip(*points, strict=True), s=5, label=name)
            ordered = sorted(value for _, value in points)
            right.step(ordered, [(rank + 1) / len(ordered) for rank in range(len(ordered))], label=name)
    for at in failed:
        left.axvline(at, color="red", linewidth=0.5)
    left.set(xlabel="sent at (s); red: failed", ylabel="ms", title="over the run")
    right.set(xlabel="ms", ylabel="fraction of requests", title="distribution")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def _row(figures: dict[str, Any], name: str, label: str) -> tuple[Any, ...]:
    return (label, *(f"{figures[name][point]:.1f}" for point in POINTS))


def _counts(name: str, counts: dict[str, int]) -> list[str]:
    return [*table((name, "requests"), list(counts.items())), ""] if counts else []
