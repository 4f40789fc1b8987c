"""Table of methods and baselines over random splits by query, as in `to-router compare`.

All choices are made on the training part of each split.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from experiments.data import Recorded
from router.evaluation.comparison import as_markdown, compare
from router.training.encoder_choice import Encoded

METHODS = ("auto", "knn", "clusters", "linear", "lexical", "tasks", "elo", "matrix_factorization", "mlp")


def add_methods(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", default=",".join(METHODS), help="names, separated by commas")
    parser.add_argument("--train-queries", type=int, help="number of training queries; default: 70 %% of all")


def print_table(outcomes: Recorded, options: argparse.Namespace, title: str) -> None:
    """Compare the methods and print Markdown."""
    count = len(outcomes.dataset)
    fraction = 0.3 if options.train_queries is None else 1 - options.train_queries / count
    result = compare(
        outcomes.dataset,
        {"default": [Encoded(outcomes.encoder, outcomes.embeddings)]},
        methods=options.methods.split(","),
        seeds=range(options.splits),
        test_fraction=fraction,
        notify=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(f"### {title}\n")
    print(as_markdown(result))
    print(intervals(result["reports"]))


def intervals(reports: dict[str, dict[str, object]]) -> str:
    """Return 95 % bootstrap intervals over the last split's test queries, a line for each method."""
    lines = ["95 % bootstrap intervals, last split:", ""]
    for name, figures in reports.items():
        gain = [f"{100 * bound:+.2f}" for bound in _pair(figures["quality_gain_ci95"])]
        line = f"- {name}: relative quality gain {' to '.join(gain)} %"
        saved = figures["cost_saved_at_equal_quality"]
        if isinstance(saved, dict) and saved["ci95"] is not None:
            share = [f"{100 * bound:.1f}" for bound in _pair(saved["ci95"])]
            lost = [f"{100 * bound:+.2f}" for bound in _pair(saved["quality_ci95"])]
            line += f"; saving {' to '.join(share)} % at {' to '.join(lost)} points"
        lines.append(line + ".")
    return "\n".join(lines) + "\n"


def _pair(values: object) -> Sequence[float]:
    return [float(value) for value in np.asarray(values)]
