"""Plot of a comparison: `python -m load_tests.plots COMPARE_JSON PNG`.

One row for each load, one column for each figure, one bar for each subject: median, minimum and maximum
of the rounds. Knows compare.json; nothing of the measurement.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from load_tests.compare import figure

COLUMNS = (
    ("requests_per_s", "requests/s"),
    ("output_tokens_per_s", "output tokens/s"),
    ("ttft_ms.p50", "first token, p50, ms"),
    ("e2e_ms.p99", "end to end, p99, ms"),
)


def main(arguments: list[str] | None = None) -> int:
    """Read and plot; 2 on bad usage."""
    files = sys.argv[1:] if arguments is None else arguments
    if len(files) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    draw(json.loads(Path(files[0]).read_text(encoding="utf-8")), Path(files[1]))
    return 0


def draw(data: dict[str, Any], file: Path) -> None:
    """Plot one comparison, without the subjects that call the back end directly."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rounds = data["rounds"]
    chart, axes = pyplot.subplots(
        len(rounds), len(COLUMNS), figsize=(3.6 * len(COLUMNS), 1.9 * len(rounds)), squeeze=False
    )
    for row, (kind, by_subject) in enumerate(rounds.items()):
        subjects = [name for name in by_subject if "no proxy" not in name][::-1]
        for column, (name, label) in enumerate(COLUMNS):
            bars = axes[row][column]
            values = {s: [v for r in by_subject[s] if (v := figure(r, name)) is not None] for s in subjects}
            shown = [subject for subject in subjects if values[subject]]
            middle = [median(values[s]) for s in shown]
            spread = [
                [mid - min(values[s]) for s, mid in zip(shown, middle, strict=True)],
                [max(values[s]) - mid for s, mid in zip(shown, middle, strict=True)],
            ]
            colors = ["tab:orange" if subject.startswith("ours") else "tab:gray" for subject in shown]
            bars.barh(shown, middle, xerr=spread, color=colors, ecolor="black", capsize=2)
            bars.set_title(f"{kind}\n{label}" if column == 0 else label, fontsize=8)
            bars.tick_params(labelsize=7, labelleft=column == 0)
            bars.set_visible(bool(shown))
    chart.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    chart.savefig(file, dpi=110)
    pyplot.close(chart)


if __name__ == "__main__":
    sys.exit(main())
