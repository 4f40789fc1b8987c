"""Make the shipped probes: `python -m experiments.prior_probes`; needs `reasoning-gym` of the version below.

No query comes from recorded outcomes or from a benchmark's test set: the probes are written for this project,
or are generated. The same version gives the same bytes; `--check` compares instead of writing.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from experiments.prior_kinds import FAMILIES
from experiments.prior_own import instructions, questions, requests
from experiments.prior_tasks import check_of, made

TARGET = Path(__file__).parent.parent / "router" / "priors" / "data"
GENERATOR, GENERATOR_VERSION = "reasoning-gym", "0.1.25"
READ = "2026-11-29"
SOURCES = {
    "own": {
        "title": "Written for this project",
        "address": "experiments/prior_own.py, experiments/prior_tasks.py and experiments/prior_inputs",
        "licence": "Apache-2.0",
        "read": READ,
    },
    GENERATOR: {
        "title": f"reasoning-gym {GENERATOR_VERSION}, generated",
        "address": "https://pypi.org/project/reasoning-gym/0.1.25/",
        "licence": "Apache-2.0",
        "read": READ,
    },
}
GENERATED = [
    *("chain_sum", "gcd", "lcm", "leg_counting", "count_bits", "decimal_chain_sum", "base_conversion"),
    *("ab", "bf", "string_insertion", "binary_alternation"),
    *("caesar_cipher", "letter_counting", "letter_jumble", "sentence_reordering"),
    *("word_sequence_reversal", "word_sorting"),
    *("aiw", "syllogism", "self_reference", "largest_island", "rotten_oranges", "course_schedule"),
    "needle_haystack",
]
"""Families with one right answer that `numeric` or `contains` can check."""
LEFT_OUT = {"gsm_symbolic", "arc_1d", "rearc", "n_queens", "tower_of_hanoi"}
"""Queries of the first three follow GSM8K's test set and ARC; the last two have few queries."""
EACH, EACH_SHOWN, DRAWN = 8, 4, 40
"""Probes of each family, of each that only shows its kind, and candidates they are taken from."""
SEED = 20261129
LONGEST, LONGEST_REFERENCE = 1000, 120
"""Characters."""


def main() -> None:
    """Write the probes and their sources, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the files, write nothing")
    options = parser.parse_args()
    texts = {
        "probes.jsonl": "".join(
            json.dumps(probe, ensure_ascii=False, sort_keys=True) + "\n" for probe in probes()
        ),
        "probe_sources.json": json.dumps(SOURCES, indent=1, sort_keys=True) + "\n",
    }
    changed = [
        name
        for name, text in texts.items()
        if not (TARGET / name).is_file() or (TARGET / name).read_bytes() != text.encode()
    ]
    for name, text in texts.items():
        print(f"{name}: {len(text.encode())} bytes, SHA-256 {hashlib.sha256(text.encode()).hexdigest()}")
        if not options.check:
            (TARGET / name).write_text(text, encoding="utf-8")
    print("changed: " + ", ".join(changed) if changed else "all files are as the inputs make them")
    sys.exit(options.check and bool(changed))


def probes() -> list[dict[str, Any]]:
    """All probes."""
    return unique([*own(), *generated()])


def own() -> list[dict[str, Any]]:
    """Those that were written for this project."""
    return unique([*questions(), *made(), *instructions(), *requests()])


def unique(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The probes, those of one query once: the first."""
    kept: dict[str, dict[str, Any]] = {}
    for probe in found:
        kept.setdefault(probe["query"], probe)
    return list(kept.values())


def generated() -> Iterator[dict[str, Any]]:
    """Fresh questions of reasoning-gym's families.

    Raises:
        RuntimeError: another version is installed.
    """
    import reasoning_gym

    if version(GENERATOR) != GENERATOR_VERSION:
        raise RuntimeError(f"{GENERATOR} {GENERATOR_VERSION} is needed, found {version(GENERATOR)}")
    for family in sorted(FAMILIES.keys() - LEFT_OUT):
        checked = family in GENERATED
        entries = reasoning_gym.create_dataset(family, size=DRAWN, seed=SEED)
        fitting = (
            entry
            for entry in entries
            if len(entry["question"]) <= LONGEST and (not checked or _is_plain(str(entry["answer"]).strip()))
        )
        for number, entry in enumerate(islice(fitting, EACH if checked else EACH_SHOWN)):
            reference = str(entry["answer"]).strip() if checked else ""
            yield {
                "id": f"{GENERATOR}/{family}-{number}",
                "kind": FAMILIES[family],
                "task": family,
                "query": entry["question"].strip(),
                "reference": reference,
                "check": check_of(reference) if checked else None,
                "source": GENERATOR,
            }


def _is_plain(reference: str) -> bool:
    """Whether an answer is short and on one line."""
    return 0 < len(reference) <= LONGEST_REFERENCE and "\n" not in reference


if __name__ == "__main__":
    main()
