"""The paper's table on recorded responses: cost, tokens, BERTSim, NLL where there is one, and quality.

Random, every single expert, kNN, MLP, BERT, the default and the optimal router, each at the best quality
it can reach and at its own default trade-off. BERTSim is measured on rows that carry a reference.
"""

import json
import sys
from pathlib import Path

import numpy as np

from experiments.data import arguments, recorded
from router.core import FloatArray, IntArray, Preferences
from router.data.dataset import Dataset, split_by_query
from router.data.outcomes import read_outcomes
from router.encoders import load_encoder
from router.evaluation.evaluate import judge
from router.labels.bertsim import BertSim
from router.training.train import train

SET = "zeroeval10_responses"
METHODS = "knn,mlp,bert,auto"
WORKED = "gsm"
"""The task whose references show their work."""


def main() -> None:
    parser = arguments(__doc__ or "", splits=1)
    parser.add_argument("--methods", default=METHODS, help="names, separated by commas")
    parser.add_argument("--bert-params", default="{}", help="JSON: parameters of bert")
    options = parser.parse_args()
    found = recorded(options.data, SET)
    inside, outside = split_by_query(found.dataset.texts, fraction=0.3, seed=0)
    dataset, asked = found.dataset.take(inside), found.dataset.take(outside)
    near = bert_sim(options.data / f"{SET}.parquet", asked)
    print(f"### The paper's table, {SET}\n")
    referenced = int(np.isfinite(near).all(axis=1).sum())
    print(f"{len(dataset)} queries to train, {len(asked)} to test, {referenced} with a worked reference.\n")
    print("| | quality | BERTSim | US$ per 1,000 queries | completion tokens | NLL |")
    print("|---|---|---|---|---|---|")
    size = len(asked.pool)
    rng = np.random.default_rng(0)
    print(_row("random", asked, near, rng.integers(0, size, len(asked))))
    for column, name in enumerate(asked.pool.names):
        print(_row(name, asked, near, np.full(len(asked), column)))
    for name in options.methods.split(","):
        params = json.loads(options.bert_params) if name == "bert" else None
        print(f"training {name}", file=sys.stderr, flush=True)
        policy = train(dataset, found.embeddings[inside], found.encoder, method=name, params=params, seed=0)
        judged = judge(policy, asked, found.embeddings[outside])
        top = judged.choices(Preferences(cost_weight=0.0))
        print(_row(f"**{name}**, best quality", asked, near, top))
        print(_row(f"**{name}**, its default", asked, near, judged.choices(policy.preferences)), flush=True)
    print(_row("optimal", asked, near, _optimal(asked)))


def bert_sim(file: Path, dataset: Dataset) -> FloatArray:
    """BERTSim of every response of the data set that has a worked reference, [n, experts]; NaN elsewhere.

    A bare result, as the other tasks have it, is like no answer that shows its work.
    """
    place = {name: at for at, name in enumerate(dataset.query_ids)}
    rows = [
        row
        for row in read_outcomes(file)
        if row["task"] == WORKED and row["query_id"] in place and row.get("response")
    ]
    print(f"BERTSim of {len(rows)} responses", file=sys.stderr, flush=True)
    labeler = BertSim(load_encoder("default", threads=2))
    found = np.full(dataset.quality.shape, np.nan)
    step = 2000
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        labels = labeler.label([r["response"] for r in part], [r["reference"] for r in part], [])
        for row, value in zip(part, labels, strict=True):
            found[place[row["query_id"]], dataset.pool.column(row["expert"])] = value
    return found


def _optimal(asked: Dataset) -> IntArray:
    """The cheapest of the best for each query."""
    best = asked.quality >= asked.quality.max(axis=1, keepdims=True)
    costs = asked.costs_usd
    picked: IntArray = best.argmax(axis=1) if costs is None else np.where(best, costs, np.inf).argmin(axis=1)
    return picked


def _row(name: str, asked: Dataset, near: FloatArray, chosen: IntArray) -> str:
    each = np.arange(len(chosen))
    measured = asked.measured
    cost, tokens = asked.costs_usd, measured.get("completion_tokens")
    cells = [
        _mean(asked.quality[each, chosen], "{:.4f}"),
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
