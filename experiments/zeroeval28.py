"""ZeroEval without o1-mini.

Quality, AIQ, honest saving and calibration of every method, beside the baselines.
"""

from experiments.data import arguments, recorded
from experiments.tables import add_methods, print_table

TITLE = "ZeroEval without o1-mini"
LEFT_OUT = "o1-mini"
"""Experts whose name holds this are left out; none where it is empty."""


def main() -> None:
    parser = arguments(TITLE)
    add_methods(parser)
    options = parser.parse_args()
    found = recorded(options.data, "zeroeval28")
    left_out = [name for name in found.dataset.pool.names if LEFT_OUT and LEFT_OUT in name.lower()]
    print_table(found.without(left_out), options, TITLE)


if __name__ == "__main__":
    main()
