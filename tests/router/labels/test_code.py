"""Code is judged by its tests, and nothing that it does counts as passing them but passing them."""

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


def test_an_answer_without_fences_is_all_code() -> None:
    assert code_of("x = 1") == "x = 1"
    assert code_of("```py\nx = 1\n```\nand\n```\ny = 2\n```") == "x = 1\n\ny = 2\n"


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="whole numbers from 1"):
        Code(timeout_s=0)
