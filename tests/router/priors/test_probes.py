"""Shipped probes: of every kind, each with a source, and none that cannot be recognised or checked."""

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

import pytest

from router.errors import InputError
from router.priors.catalogue import KINDS
from router.priors.probes import examples, load_probes, parse_probes

SOURCE = {"title": "A source", "address": "https://example.org", "licence": "MIT", "read": "2026-11-29"}
PROBE = {
    "id": "a/0",
    "kind": "code",
    "task": "loop",
    "query": "What does print(1) print?",
    "reference": "1",
    "check": "numeric",
    "source": "a",
}
LEAST_CHECKED, LEAST_EXAMPLES = 40, 40


def parsed(source: dict[str, Any] | None = None, **changed: Any) -> object:
    return parse_probes(json.dumps(PROBE | changed) + "\n", json.dumps({"a": source or SOURCE}))


def test_every_kind_has_probes_that_can_be_checked() -> None:
    counts = Counter(probe.kind for probe in load_probes() if probe.check is not None)

    assert min(counts[kind] for kind in KINDS) >= LEAST_CHECKED


def test_every_kind_is_shown_by_many_examples() -> None:
    counts = Counter(probe.kind for probe in examples(load_probes()))

    assert min(counts[kind] for kind in KINDS) >= LEAST_EXAMPLES


def test_no_query_is_shipped_twice() -> None:
    assert len({probe.query for probe in load_probes()}) == len(load_probes())
    assert len({probe.id for probe in load_probes()}) == len(load_probes())


@pytest.mark.parametrize("missing", sorted(SOURCE))
def test_a_source_without_its_facts_is_an_error(missing: str) -> None:
    with pytest.raises(InputError, match=missing):
        parsed({key: value for key, value in SOURCE.items() if key != missing})


@pytest.mark.parametrize("changed", [{"source": "hearsay"}, {"kind": "juggling"}, {"colour": "red"}])
def test_an_invalid_probe_is_an_error(changed: dict[str, str]) -> None:
    with pytest.raises(InputError):
        parsed(**changed)


def test_a_valid_probe_is_read() -> None:
    (probe,) = parse_probes(json.dumps(PROBE) + "\n", json.dumps({"a": SOURCE}))

    assert asdict(probe) == PROBE
