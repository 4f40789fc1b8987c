"""Accuracy of each pocket expert on each kind of question, as a Markdown table.

    python -m cluster.pocket.accuracy_table [--judge]

Reads the stamps of the experts; `--judge` evaluates the held-out questions again. Knows no engine.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence

from cluster.pocket.expert_folder import EXPERTS, ExpertFolderError, verified_stamp
from cluster.pocket.questions import KINDS, questions
from cluster.pocket.recipe import RECIPES

Accuracies = Mapping[str, Mapping[str, float]]
"""Expert → task or kind of question → fraction of correct answers."""


def stamped() -> tuple[Accuracies, Mapping[str, int]]:
    """Return the accuracies that the stamps hold, and the number of parameters.

    Raises:
        OSError: an expert is missing.
        ExpertFolderError: a file of an expert differs from its stamp.
    """
    stamps = {name: verified_stamp(EXPERTS / name) for name in RECIPES}
    return (
        {name: stamp.heldout_accuracy for name, stamp in stamps.items()},
        {name: stamp.parameters for name, stamp in stamps.items()},
    )


def judged() -> Accuracies:
    """Measure the accuracies now."""
    from cluster.pocket.generate import accuracy_by_kind, load_expert
    from cluster.pocket.train_experts import JUDGED_ON, JUDGED_SEED

    held_out = questions("heldout", n=JUDGED_ON, seed=JUDGED_SEED)
    return {name: accuracy_by_kind(load_expert(EXPERTS / name), held_out) for name in RECIPES}


def table(accuracies: Accuracies, parameters: Mapping[str, int]) -> str:
    """Return one row for each task and kind and one column for each expert, in percent."""
    lines = [
        "| held-out questions | " + " | ".join(accuracies) + " |",
        "|---|" + "---:|" * len(accuracies),
        "| parameters | " + " | ".join(f"{parameters[name]:,}" for name in accuracies) + " |",
    ]
    for task, kinds in KINDS.items():
        for row in (task, *kinds):
            cells = " | ".join(f"{100 * rates[row]:.1f} %" for rates in accuracies.values())
            lines.append(f"| {'**' + row + '**' if row == task else row} | {cells} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 if an expert is missing or damaged."""
    parser = argparse.ArgumentParser(prog="python -m cluster.pocket.accuracy_table", description=main.__doc__)
    parser.add_argument("--judge", action="store_true", help="evaluate again (needs torch; a minute)")
    options = parser.parse_args(arguments)
    try:
        accuracies, parameters = stamped()
    except (OSError, ExpertFolderError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(judged() if options.judge else accuracies, parameters))
    return 0


if __name__ == "__main__":
    sys.exit(main())
