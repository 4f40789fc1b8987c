"""How often is an equal canary called worse, and how soon is a worse one found?

Canaries are simulated with qualities of 0 or 1; the comparison is looked at after each of the canary's
values, as a rollback by itself would do.

python -m experiments.canaries [--runs 200] [--most 500] [--share 0.05] [--quality 0.7]
"""

import argparse
from collections.abc import Sequence

import numpy as np

from router.learning.canary import ALPHA
from router.learning.sequential import Sums, Verdict, compare

WORSE_BY = (0.0, 0.05, 0.1, 0.15)
FIRST_SEED = 1000


def canary(quality: float, control: float, *, share: float, most: int, seed: int) -> tuple[Verdict, int]:
    """Return the first verdict, and the number of the canary's values until then."""
    rng = np.random.default_rng(seed)
    values = (rng.random(most) < quality).cumsum()
    # Values of the other arm that arrive before each value of the canary.
    others = (rng.geometric(share, size=most) - 1).cumsum()
    totals = np.concatenate([np.zeros(1, dtype=int), (rng.random(int(others[-1])) < control).cumsum()])
    for look in range(most):
        good, n, total = float(values[look]), int(others[look]), float(totals[others[look]])
        found = compare(Sums(look + 1, good, good), Sums(n, total, total), alpha=ALPHA["quality"])
        if found.verdict != "undecided":
            return found.verdict, look + 1
    return "undecided", most


def row(worse_by: float, runs: Sequence[tuple[Verdict, int]]) -> str:
    """Return a row of the table."""
    counts = {name: sum(verdict == name for verdict, _ in runs) for name in ("worse", "better", "undecided")}
    ends = sorted(count for verdict, count in runs if verdict == "worse")
    median = f"{np.median(ends):.0f}" if ends else "–"
    shares = " | ".join(f"{count / len(runs):.1%}" for count in counts.values())
    return f"| {100 * worse_by:.0f} points worse | {shares} | {median} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="canaries of each kind")
    parser.add_argument("--most", type=int, default=500, help="values of the canary in each")
    parser.add_argument("--share", type=float, default=0.05, help="of requests that the canary gets")
    parser.add_argument("--quality", type=float, default=0.7, help="of the policy in effect")
    options = parser.parse_args()
    print(
        f"### {options.runs} canaries each, share {options.share}, quality {options.quality}, up to "
        f"{options.most} values\n\n"
        "| canary | called worse | called better | undecided | values until called worse (median) |\n"
        "|---|---|---|---|---|"
    )
    for worse_by in WORSE_BY:
        runs = [
            canary(
                options.quality - worse_by,
                options.quality,
                share=options.share,
                most=options.most,
                seed=FIRST_SEED + number,
            )
            for number in range(options.runs)
        ]
        print(row(worse_by, runs), flush=True)


if __name__ == "__main__":
    main()
