"""Fresh probes are made by a generator, and those of other kinds are the shipped ones."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from router.priors.catalogue import KINDS
from router.priors.fresh import PLAIN, fresh, generated
from router.priors.probing import CHECKS


def create_dataset(family: str, *, size: int, seed: int) -> list[dict[str, Any]]:
    """As the generator makes them: entries with `question` and `answer`; some families print."""
    sys.stdout.write(".")
    return [
        {
            "question": f"{family}, {seed}: what is {number}?\n",
            "answer": f"{number}" if number else "two\nlines",
        }
        for number in range(size)
    ]


@pytest.fixture(autouse=True)
def _generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", SimpleNamespace(create_dataset=create_dataset))


def test_every_kind_has_probes_that_can_be_checked(capsys: pytest.CaptureFixture[str]) -> None:
    found = [probe for probe in fresh(12, seed=3) if probe.check in CHECKS]

    assert {probe.kind for probe in found} == set(KINDS)
    assert sum(probe.kind == "mathematics" for probe in found) >= 12
    assert len({probe.id for probe in found}) == len(found)
    assert capsys.readouterr().out == ""


def test_answers_of_several_lines_are_left_out() -> None:
    found = list(generated([PLAIN[0]], each=2, seed=0))

    assert [probe.reference for probe in found] == ["1", "2"]
    assert {probe.check for probe in found} == {"numeric"}


def test_other_seeds_make_other_probes() -> None:
    first, second = (next(iter(generated([PLAIN[0]], each=1, seed=seed))) for seed in (0, 1))

    assert first.query != second.query
    assert first.id != second.id
