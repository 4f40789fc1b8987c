"""Make the shipped probes: `python -m experiments.prior_probes`; needs the extra `probes`.

No query comes from recorded outcomes or from a benchmark's test set: the probes are written for this project,
or are generated. The same version gives the same bytes; `--check` compares instead of writing.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments.prior_own import instructions, questions, requests
from experiments.prior_tasks import made
from router.priors.families import FAMILIES
from router.priors.fresh import GENERATOR, PLAIN
from router.priors.fresh import generated as fresh

TARGET = Path(__file__).parent.parent / "router" / "priors" / "data"
GENERATOR_VERSION = "0.1.25"
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
        "address": "https://github.com/open-thought/reasoning-gym",
        "licence": "Apache-2.0",
        "read": READ,
    },
}
LEFT_OUT = {"gsm_symbolic", "arc_1d", "rearc", "n_queens", "tower_of_hanoi"}
"""Queries of the first three follow GSM8K's test set and ARC; the last two have few queries."""
EACH, EACH_SHOWN = 8, 4
"""Probes of each family, and of each that only shows its kind."""
SEED = 20261129


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
    if version(GENERATOR) != GENERATOR_VERSION:
        raise RuntimeError(f"{GENERATOR} {GENERATOR_VERSION} is needed, found {version(GENERATOR)}")
    for family in sorted(FAMILIES.keys() - LEFT_OUT):
        for probe in fresh([family], each=EACH if family in PLAIN else EACH_SHOWN, seed=SEED):
            yield asdict(probe) | {"id": probe.id.replace(f"-{SEED}-", "-")}


if __name__ == "__main__":
    main()
