"""The shipped probes are what their maker makes."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from experiments.prior_probes import LEFT_OUT, SOURCES, own
from router.priors.families import FAMILIES
from router.priors.fresh import PLAIN
from router.priors.probes import load_probes


def test_own_probes_are_as_their_makers_give_them() -> None:
    shipped = [asdict(probe) for probe in load_probes() if probe.source == "own"]

    assert shipped == own()


def test_generated_probes_are_of_known_families() -> None:
    made = [probe for probe in load_probes() if probe.source != "own"]

    assert all(FAMILIES[probe.task] == probe.kind for probe in made)
    assert not {probe.task for probe in made} & LEFT_OUT
    assert {probe.task for probe in made if probe.check is not None} == set(PLAIN)


def test_no_source_is_a_recorded_set_of_outcomes() -> None:
    assert {probe.source for probe in load_probes()} == set(SOURCES) == {"own", "reasoning-gym"}


def test_the_documentation_counts_the_shipped_probes() -> None:
    text = (Path(__file__).parents[2] / "docs" / "start.md").read_text(encoding="utf-8")
    probes = load_probes()
    checked = sum(probe.check is not None for probe in probes)
    counts = Counter(probe.source for probe in probes)

    assert f"{len(probes)} shipped queries; {checked} of them" in text
    assert f"| {counts['own']} |" in text
    assert f"| {counts['reasoning-gym']} |" in text
