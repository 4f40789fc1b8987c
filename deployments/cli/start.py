"""`to-router start --config`: a policy before any data over the experts of a serve_config.yaml."""

import argparse
from pathlib import Path
from typing import Any

from deployments.prior_experts import experts_of_config
from router.cli.inputs import mapping_of
from router.cli.start import experts_of_file
from router.errors import InputError
from router.priors.start import StartExpert


def add_command(commands: Any) -> None:
    """Add `--config` to `to-router start`."""
    start = commands.choices["start"]
    start.add_argument("--config", type=Path, help="a serve_config.yaml: its experts, models and prices")
    start.set_defaults(experts_of=experts_of)


def experts_of(options: argparse.Namespace) -> list[StartExpert]:
    """The experts that `--config` or `--experts` names.

    Raises:
        InputError: both are named or none is, or the file is no configuration of a graph.
        PoolError: an expert is invalid.
    """
    if options.config is None:
        return experts_of_file(options)
    if options.experts is not None:
        raise InputError("--config and --experts exclude each other: name one of them")
    return experts_of_config(mapping_of(options.config), str(options.config))
