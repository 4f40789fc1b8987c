"""RouteLLM's pair (GPT-4 and Mixtral): APGR, CPT50 and CPT80 in and out of domain.

1,500 MMLU labels → the other queries; half of GSM8K → the other half; all of one → all of the other.
"""

import sys

import numpy as np

from experiments.data import Recorded, arguments, mean_and_spread, recorded
from router.core import FloatArray, IntArray
from router.data.dataset import split_by_query
from router.evaluation import metrics
from router.evaluation.evaluate import EvaluatedPolicy, judge, report
from router.training.train import train

METHODS = "auto,knn,linear,lexical,tasks,elo,matrix_factorization,mlp,random"
FIGURES = ("apgr", "cpt50", "cpt80")


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--methods", default=METHODS, help="names, separated by commas")
    options = parser.parse_args()
    mmlu = recorded(options.data, "routellm_mmlu")
    gsm8k = recorded(options.data, "routellm_gsm8k")
    names, seeds = options.methods.split(","), range(options.splits)
    within = 1 - 1500 / len(mmlu.dataset)
    _table("1,500 MMLU labels → the rest", names, [_apart(mmlu, within, seed) for seed in seeds])
    _table("GSM8K, half → half", names, [_apart(gsm8k, 0.5, seed) for seed in seeds])
    _table("all MMLU → GSM8K", names, [(mmlu, gsm8k)])
    _table("all GSM8K → MMLU", names, [(gsm8k, mmlu)])


def _table(title: str, methods: list[str], pairs: list[tuple[Recorded, Recorded]]) -> None:
    print(f"### {title}\n")
    print(
        f"{len(pairs)} split(s); {len(pairs[-1][0].dataset)} to train, {len(pairs[-1][1].dataset)} to test.\n"
    )
    print("| | APGR | 95 % interval, last split | CPT50 | CPT80 | held back by the guard |")
    print("|---|---|---|---|---|---|")
    for name in methods:
        figures: dict[str, list[float]] = {}
        for seed, (training, test) in enumerate(pairs):
            print(f"{title}: {name}, split {seed}", file=sys.stderr, flush=True)
            policy = train(training.dataset, training.embeddings, training.encoder, method=name, seed=seed)
            judged = judge(policy, test.dataset, test.embeddings)
            result = report(judged)
            for figure in FIGURES:
                figures.setdefault(figure, []).append(np.nan if result[figure] is None else result[figure])
            figures.setdefault("far", []).append(result["unfamiliar"])
            low, high = _interval(judged)
        apgr, cpt50, cpt80, far = (mean_and_spread(figures[figure]) for figure in (*FIGURES, "far"))
        print(f"| {name} | {apgr} | {low:.3f} to {high:.3f} | {cpt50} | {cpt80} | {far} |", flush=True)
    print()


def _apart(outcomes: Recorded, fraction: float, seed: int) -> tuple[Recorded, Recorded]:
    inside, outside = split_by_query(outcomes.dataset.texts, fraction=fraction, seed=seed)
    return _take(outcomes, inside), _take(outcomes, outside)


def _take(outcomes: Recorded, rows: IntArray) -> Recorded:
    return Recorded(outcomes.dataset.take(rows), outcomes.embeddings[rows], outcomes.encoder)


def _interval(judged: EvaluatedPolicy) -> tuple[float, float]:
    """95 % bootstrap interval of APGR over the test queries."""
    strong = judged.best_single
    lead = judged.scores[:, strong] - judged.scores[:, 1 - strong]
    rng, size = np.random.default_rng(0), len(lead)
    values: list[float] = []
    for _ in range(500):
        rows = rng.integers(0, size, size)
        quality: FloatArray = judged.quality[rows]
        share, recovered = metrics.gap_recovered(lead[rows], quality[:, 1 - strong], quality[:, strong])
        values.append(metrics.apgr(share, recovered))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
