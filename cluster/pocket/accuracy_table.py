"""How good each pocket expert is at each kind of question, as a Markdown table.

    python -m cluster.pocket.accuracy_table [--judge]

Reads the stamps of the made experts; `--judge` asks the held-out questions anew. Knows no engine.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence

from cluster.pocket.expert_folder import EXPERTS, ExpertFolderError, verified_stamp
from cluster.pocket.questions import KINDS, questions
from cluster.pocket.recipe import RECIPES

Accuracies = Mapping[str, Mapping[str, float]]
"""Expert → task or kind of question → fraction right."""


def stamped() -> tuple[Accuracies, Mapping[str, int]]:
    """What was measured when the experts were made, and their parameters.

    Raises:
        OSError: an expert is not there.
        ExpertFolderError: a file of an expert is not what its stamp says.
    """
    stamps = {name: verified_stamp(EXPERTS / name) for name in RECIPES}
    return (
        {name: stamp.heldout_accuracy for name, stamp in stamps.items()},
        {name: stamp.parameters for name, stamp in stamps.items()},
    )


def judged() -> Accuracies:
    """The same, measured now."""
    from cluster.pocket.generate import accuracy_by_kind, load_expert
    from cluster.pocket.train_experts import JUDGED_ON, JUDGED_SEED

    asked = questions("heldout", n=JUDGED_ON, seed=JUDGED_SEED)
    return {name: accuracy_by_kind(load_expert(EXPERTS / name), asked) for name in RECIPES}


def table(accuracies: Accuracies, parameters: Mapping[str, int]) -> str:
    """One row for each task and kind, one column for each expert, percent right."""
    lines = [
        "| held-out questions | " + " | ".join(accuracies) + " |",
        "|---|" + "---:|" * len(accuracies),
        "| parameters | " + " | ".join(f"{parameters[name]:,}" for name in accuracies) + " |",
    ]
    for task, kinds in KINDS.items():
        for row in (task, *kinds):
            cells = " | ".join(f"{100 * found[row]:.1f} %" for found in accuracies.values())
            lines.append(f"| {'**' + row + '**' if row == task else row} | {cells} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 when an expert is missing or damaged."""
    parser = argparse.ArgumentParser(prog="python -m cluster.pocket.accuracy_table", description=main.__doc__)
    parser.add_argument("--judge", action="store_true", help="ask the questions anew (needs torch; a minute)")
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
