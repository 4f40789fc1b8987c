"""The paper's table on recorded responses: cost, tokens, BERTSim, NLL where there is one, and quality.

Random, every single expert, kNN, MLP, BERT, the default and the optimal router, each at its best quality
and at its default trade-off. BERTSim is measured on rows with a reference.
"""

import json
import sys
from pathlib import Path

import numpy as np

from experiments.data import arguments, recorded
from router.core import FloatArray, IntArray, Preferences
from router.data.dataset import Dataset, split_by_query
from router.data.outcomes import read_outcomes
from router.encoders import load_transformer
from router.evaluation.evaluate import judge
from router.labels.bertsim import BertSim
from router.training.train import train

SET = "zeroeval10_responses"
METHODS = "knn,mlp,bert,auto"
WORKED = "gsm"
"""The task with worked references."""


def main() -> None:
    parser = arguments(__doc__ or "", splits=1)
    parser.add_argument("--methods", default=METHODS, help="names, separated by commas")
    parser.add_argument("--bert-params", default="{}", help="JSON: parameters of bert")
    options = parser.parse_args()
    outcomes = recorded(options.data, SET)
    inside, outside = split_by_query(outcomes.dataset.texts, fraction=0.3, seed=0)
    dataset, test = outcomes.dataset.take(inside), outcomes.dataset.take(outside)
    near = bert_sim(options.data / f"{SET}.parquet", test)
    print(f"### The paper's table, {SET}\n")
    referenced = int(np.isfinite(near).all(axis=1).sum())
    print(f"{len(dataset)} queries to train, {len(test)} to test, {referenced} with a worked reference.\n")
    print("| | quality | BERTSim | US$ per 1,000 queries | completion tokens | NLL |")
    print("|---|---|---|---|---|---|")
    size = len(test.pool)
    rng = np.random.default_rng(0)
    print(_row("random", test, near, rng.integers(0, size, len(test))))
    for column, name in enumerate(test.pool.names):
        print(_row(name, test, near, np.full(len(test), column)))
    for name in options.methods.split(","):
        params = json.loads(options.bert_params) if name == "bert" else None
        print(f"training {name}", file=sys.stderr, flush=True)
        policy = train(
            dataset, outcomes.embeddings[inside], outcomes.encoder, method=name, params=params, seed=0
        )
        judged = judge(policy, test, outcomes.embeddings[outside])
        top = judged.choices(Preferences(cost_weight=0.0))
        print(_row(f"**{name}**, best quality", test, near, top))
        print(_row(f"**{name}**, its default", test, near, judged.choices(policy.preferences)), flush=True)
    print(_row("optimal", test, near, _optimal(test)))


def bert_sim(file: Path, dataset: Dataset) -> FloatArray:
    """Return BERTSim of every response with a worked reference, [n, experts]; NaN elsewhere.

    The references of other tasks are bare results, to which no answer with its work is similar.
    """
    row_of = {name: at for at, name in enumerate(dataset.query_ids)}
    rows = [
        row
        for row in read_outcomes(file)
        if row["task"] == WORKED and row["query_id"] in row_of and row.get("response")
    ]
    print(f"BERTSim of {len(rows)} responses", file=sys.stderr, flush=True)
    labeler = BertSim(load_transformer("default", threads=2))
    values = np.full(dataset.quality.shape, np.nan)
    step = 2000
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        labels = labeler.label([r["response"] for r in part], [r["reference"] for r in part], [])
        for row, value in zip(part, labels, strict=True):
            values[row_of[row["query_id"]], dataset.pool.column(row["expert"])] = value
    return values


def _optimal(test: Dataset) -> IntArray:
    """Return the cheapest of the best experts for each query."""
    best = test.quality >= test.quality.max(axis=1, keepdims=True)
    costs = test.costs_usd
    picked: IntArray = best.argmax(axis=1) if costs is None else np.where(best, costs, np.inf).argmin(axis=1)
    return picked


def _row(name: str, test: Dataset, near: FloatArray, chosen: IntArray) -> str:
    each = np.arange(len(chosen))
    measured = test.measured
    cost, tokens = test.costs_usd, measured.get("completion_tokens")
    cells = [
        _mean(test.quality[each, chosen], "{:.4f}"),
        _mean(near[each, chosen], "{:.4f}"),
        _mean(None if cost is None else 1000 * cost[each, chosen], "{:.3f}"),
        _mean(None if tokens is None else tokens[each, chosen], "{:.0f}"),
        _mean(measured["nll"][each, chosen] if "nll" in measured else None, "{:.3f}"),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _mean(values: FloatArray | None, how: str) -> str:
    if values is None or not np.isfinite(values).any():
        return "–"
    return how.format(np.nanmean(values))


if __name__ == "__main__":
    main()
