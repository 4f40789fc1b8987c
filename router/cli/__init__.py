"""The command line `to-router`: from asking experts to a policy that serves.

Serving and cluster commands register themselves through the entry-point group `to_router.commands`:
each entry is a function that takes argparse's subparsers, so the library imports neither.
Exit codes: 0 done, 1 a check said no or work is left, 2 bad input, 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

from router.cli import outcomes, policies, training
from router.errors import RouterError

COMMANDS = "to_router.commands"
EXTRAS = {
    **dict.fromkeys(("sklearn", "scipy", "matplotlib", "faiss", "torch", "transformers"), "train"),
    **dict.fromkeys(("ray", "orjson", "prometheus_client"), "serve"),
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
        # The reader of our output left (`| head`): what is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        return _refused(options, f"this needs {module}: install to-router[{EXTRAS[module]}]")
    except (RouterError, OSError) as error:
        return _refused(options, error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """All commands: the library's own, then those that other packages announce."""
    found = argparse.ArgumentParser(
        prog="to-router", description="Train, judge and serve LLM routing policies."
    )
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for room in (outcomes, training, policies):
        room.add_commands(commands)
    for point in entry_points(group=COMMANDS):
        try:
            add = point.load()
        except ImportError as error:
            # A command of an extra that is not installed: the others work without it.
            if os.environ.get("TO_ROUTER_DEBUG"):
                print(f"command {point.name!r} is not available: {error}", file=sys.stderr)
            continue
        add(commands)
    return found


def _refused(options: argparse.Namespace, why: object) -> int:
    line = " ".join(str(why).split())
    print(f"to-router {options.command}: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
