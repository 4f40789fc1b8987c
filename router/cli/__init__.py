"""The command line `to-router`: from collecting outcomes to a policy that serves.

Serving and cluster commands register themselves through the entry-point group `to_router.commands`:
each entry is a function that takes argparse's subparsers, so the library imports neither.
Exit codes: 0 done, 1 a check failed or work is left, 2 bad input, 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import NoReturn

from router.cli import canary, learning, outcomes, plans, policies, start, training
from router.errors import RouterError
from router.validation import printable

COMMANDS = "to_router.commands"
EXTRAS = {
    **dict.fromkeys(("sklearn", "scipy", "matplotlib", "faiss", "torch", "transformers"), "train"),
    **dict.fromkeys(("ray", "orjson", "prometheus_client"), "serve"),
    "reasoning_gym": "probes",
}
"""Module → the extra that installs it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; one clear line on standard error when the input is bad."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of our output closed it (`| head`): what is still buffered is discarded.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        return _bad_input(options, f"this needs {module}: install to-router[{EXTRAS[module]}]")
    except (RouterError, OSError) as error:
        return _bad_input(options, error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """A parser that reports wrong usage in one line; `--help` has the rest."""

    def error(self, message: str) -> NoReturn:
        line = " ".join(printable(message).split())
        print(f"{self.prog}: {line} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands: the library's own, then those that other packages register."""
    parser = _Parser(prog="to-router", description="Train, evaluate and serve LLM routing policies.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (start, outcomes, plans, training, policies, learning, canary):
        module.add_commands(commands)
    for point in entry_points(group=COMMANDS):
        try:
            add = point.load()
        except ImportError as error:
            # A command of an extra that is not installed: the others work without it.
            if os.environ.get("TO_ROUTER_DEBUG"):
                print(f"command {point.name!r} is not available: {error}", file=sys.stderr)
            continue
        add(commands)
    return parser


def _bad_input(options: argparse.Namespace, why: object) -> int:
    line = " ".join(printable(str(why)).split())
    print(f"to-router {options.command}: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
