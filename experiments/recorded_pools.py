"""Every method and baseline on recorded outcomes: quality, AIQ, saving and calibration.

python -m experiments.recorded_pools mmlupro10|open_pool|zeroeval28 --data FOLDER [--methods auto,knn]
"""

from typing import NamedTuple

from experiments.data import arguments, recorded
from experiments.tables import add_methods, print_table


class RecordedPool(NamedTuple):
    """A set of recorded outcomes, and the part of the names of experts that are excluded from it."""

    title: str
    outcomes: str
    excluded: str | None = None


POOLS = {
    "mmlupro10": RecordedPool("MMLU-Pro, ten experts", "mmlupro10"),
    "open_pool": RecordedPool("MMLU-Pro, open-weight experts only", "mmlupro10", "gemini"),
    "zeroeval28": RecordedPool("ZeroEval without o1-mini", "zeroeval28", "o1-mini"),
}


def excluded(pool: RecordedPool, names: tuple[str, ...]) -> list[str]:
    """Return the experts that are excluded from a pool."""
    return [name for name in names if pool.excluded is not None and pool.excluded in name.lower()]


def main() -> None:
    """Print the table of one pool."""
    parser = arguments(__doc__ or "")
    parser.add_argument("name", choices=POOLS)
    add_methods(parser)
    options = parser.parse_args()
    pool = POOLS[options.name]
    outcomes = recorded(options.data, pool.outcomes)
    print_table(outcomes.without(excluded(pool, outcomes.dataset.pool.names)), options, pool.title)


if __name__ == "__main__":
    main()
