"""Options of the whole test run."""

import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # tests do not assert times
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--transport",
        choices=("fast", "plain"),
        default="fast",
        help="serve the end-to-end application on the fast transport or on Serve's Python proxy",
    )
    parser.addoption(
        "--soak-minutes",
        type=float,
        default=20.0,
        help="how long the soak of the graph under half load takes",
    )
