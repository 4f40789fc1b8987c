"""Fresh probes by reasoning-gym, which no model can have memorised; needs `pip install to-router[probes]`."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from io import StringIO
from itertools import islice
from typing import Any

from router.priors.families import FAMILIES
from router.priors.probes import Probe, check_of, load_probes

GENERATOR = "reasoning-gym"
PLAIN = (
    *("chain_sum", "gcd", "lcm", "leg_counting", "count_bits", "decimal_chain_sum", "base_conversion"),
    *("ab", "bf", "string_insertion", "binary_alternation"),
    *("caesar_cipher", "letter_counting", "letter_jumble", "sentence_reordering"),
    *("word_sequence_reversal", "word_sorting"),
    *("aiw", "syllogism", "self_reference", "largest_island", "rotten_oranges", "course_schedule"),
    "needle_haystack",
)
"""Families with one right answer that `numeric` or `contains` can check."""
DRAWN = 40
"""Candidates that the probes of a family are taken from, at the least."""
LONGEST, LONGEST_REFERENCE = 1000, 120
"""Characters."""


def fresh(count: int, seed: int) -> list[Probe]:
    """Fresh probes of every kind that has a generator, up to `count` of a kind; shipped ones of the others.

    Raises:
        ModuleNotFoundError: reasoning-gym is not installed.
    """
    numbers = {family: -(-count // _families(FAMILIES[family])) for family in PLAIN}
    drawn = (probe for family in PLAIN for probe in generated([family], each=numbers[family], seed=seed))
    made = {probe.query: probe for probe in drawn}.values()
    covered = {probe.kind for probe in made}
    return [*made, *(probe for probe in load_probes() if probe.kind not in covered)]


def generated(families: Iterable[str], *, each: int, seed: int) -> Iterator[Probe]:
    """Probes of families of reasoning-gym, in this order; those of the others than `PLAIN` have no check."""
    import reasoning_gym

    for family in families:
        checked = family in PLAIN
        with redirect_stdout(StringIO()):  # some families print while they look for a query
            entries = reasoning_gym.create_dataset(family, size=max(DRAWN, 2 * each), seed=seed)
            taken = list(islice((entry for entry in entries if _fits(entry, checked)), each))
        for number, entry in enumerate(taken):
            reference = str(entry["answer"]).strip() if checked else ""
            yield Probe(
                id=f"{GENERATOR}/{family}-{seed}-{number}",
                kind=FAMILIES[family],
                task=family,
                query=entry["question"].strip(),
                reference=reference,
                check=check_of(reference) if checked else None,
                source=GENERATOR,
            )


def _families(kind: str) -> int:
    return sum(FAMILIES[family] == kind for family in PLAIN)


def _fits(entry: Mapping[str, Any], checked: bool) -> bool:
    """Whether a query is short, and where its answer is to be checked, that is short and on one line."""
    answer = str(entry["answer"]).strip()
    plain = 0 < len(answer) <= LONGEST_REFERENCE and "\n" not in answer
    return len(entry["question"]) <= LONGEST and (plain or not checked)
