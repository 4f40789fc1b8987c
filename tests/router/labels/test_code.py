"""Code is judged by its tests, and nothing that it does counts as passing them but passing them."""

import time
from pathlib import Path

import pytest

from router.errors import InputError
from router.labels.code import Code, code_of

TESTS = "assert add(2, 3) == 5\nassert add(-1, 1) == 0"


def judged(response: str) -> float:
    return float(Code(timeout_s=1, workers=1).label([response], [TESTS], [""])[0])


@pytest.mark.parametrize(
    ("response", "quality"),
    [
        ("def add(a, b):\n    return a + b", 1.0),
        ("Here it is:\n```python\ndef add(a, b):\n    return a + b\n```\nDone.", 1.0),
        ("def add(a, b):\n    return a - b", 0.0),
        ("def add(a, b: return", 0.0),
        ("", 0.0),
        ("import os\nos._exit(0)", 0.0),
        ("import sys\nsys.exit(0)", 0.0),
        ("raise SystemExit", 0.0),
        ("while True:\n    pass", 0.0),
        ("kept = [0] * (1 << 30)\ndef add(a, b):\n    return a + b", 0.0),
        ("import os\nos.system('true')\nos.fork()\ndef add(a, b):\n    return a + b", None),
    ],
)
def test_only_code_that_passes_is_worth_anything(response: str, quality: float | None) -> None:
    found = judged(response)

    # Whether a process limit binds depends on the user who runs it (root is above it).
    assert found in {0.0, 1.0} if quality is None else found == quality


FUTURE = """
from __future__ import annotations
from dataclasses import dataclass
@dataclass
class Pair:
    a: int
    b: int
def add(a, b):
    pair = Pair(a, b)
    return pair.a + pair.b
"""


def test_dataclasses_with_postponed_annotations_work() -> None:
    assert judged(FUTURE) == 1.0


def test_the_word_that_says_passed_is_no_name_of_the_answer() -> None:
    assert judged("print(word)\nraise SystemExit") == judged("import answer\nprint(answer.word)") == 0.0
    assert judged("def add(a, b):\n    assert 'word' not in globals()\n    return a + b") == 1.0


LINGERS = """
import os, sys, time
try:
    child = os.fork()
except OSError:
    child = -1
if child == 0:
    time.sleep(60)
with open({told!r}, "w") as file:
    file.write(str(child))
{end}
"""


@pytest.mark.parametrize("end", ["def add(a, b):\n    return a + b", "while True:\n    time.sleep(1)"])
def test_nothing_that_an_answer_starts_outlives_it(tmp_path: Path, end: str) -> None:
    judged(LINGERS.format(told=str(tmp_path / "child"), end=end))
    child = int((tmp_path / "child").read_text())

    # A user with a process limit could not start one.
    assert child == -1 or _ends(child)


def _ends(process: int) -> bool:
    """Whether it ends within a short time: a kill is not immediate."""
    stat, until = Path(f"/proc/{process}/stat"), time.monotonic() + 5.0
    while time.monotonic() < until:
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_an_answer_without_fences_is_all_code() -> None:
    assert code_of("x = 1") == "x = 1"
    assert code_of("```py\nx = 1\n```\nand\n```\ny = 2\n```") == "x = 1\n\ny = 2\n"


def test_a_limit_of_zero_is_rejected() -> None:
    with pytest.raises(InputError, match="whole numbers from 1"):
        Code(timeout_s=0)
