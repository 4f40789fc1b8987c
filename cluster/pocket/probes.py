"""Probes for the pocket experts by their own generator, for `to-router start --probe`.

The pocket experts can do nothing but what they were made for; the shipped probes would all fail.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cluster.pocket.questions import questions
from router.cli.probing import Generator

if TYPE_CHECKING:
    from router.priors.probes import Probe
    from router.priors.start import StartExpert

FOLDER = "cluster/local/experts/"
"""Where the models of the pocket experts are."""
KIND_OF_TASK = {"arithmetic": "mathematics", "words": "language", "atlas": "knowledge"}
SPLIT = "policy"
"""The experts were not trained on it, and the held-out queries stay unseen."""


def add_command(commands: Any) -> None:
    """Register the generator with `to-router start`."""
    commands.choices["start"].get_default("generators")["pocket"] = Generator(probes, fits)


def fits(experts: "Sequence[StartExpert]") -> bool:
    """Whether most of the experts are pocket experts."""
    return 2 * sum(expert.model.startswith(FOLDER) for expert in experts) > len(experts)


def probes(count: int, seed: int) -> "list[Probe]":
    """Probes of all tasks in equal parts, half as many again as are to be chosen."""
    from router.priors.probes import Probe

    return [
        Probe(
            id=f"pocket/{question.kind}-{seed}-{number}",
            kind=KIND_OF_TASK[question.task],
            task=question.kind,
            query=question.query,
            reference=question.reference,
            check="exact",
            source="pocket",
        )
        for number, question in enumerate(questions(SPLIT, n=count + count // 2, seed=seed))
    ]
