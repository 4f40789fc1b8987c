"""Code is judged by its tests, and nothing that it does counts as passing them but passing them."""

import ctypes
import resource
import time
from pathlib import Path

import pytest

from router import labels
from router.errors import InputError
from router.labels.code import Code, code_of
from router.labels.code_process import LANDLOCK_CREATE_RULESET, VERSION_FLAG, limit_processes

TESTS = "assert add(2, 3) == 5\nassert add(-1, 1) == 0"


def has_landlock() -> bool:
    return ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG) > 0


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
import os, time
try:
    child = os.fork()
except OSError:  # a user with a process limit cannot start one
    child = -1
if child == 0:
    {escape}
    time.sleep(60)
    os._exit(0)
{end}
"""
PASSES = "def add(a, b):\n    return a + b"


@pytest.mark.parametrize(
    "escape", ["pass", "os.setsid()", "os.setsid()\n    if os.fork():\n        os._exit(0)"]
)
@pytest.mark.parametrize("end", [PASSES, "while True:\n    time.sleep(1)"])
def test_nothing_that_an_answer_starts_outlives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, escape: str, end: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert judged(LINGERS.format(escape=escape, end=end)) == float(end == PASSES)
    assert _all_end(str(tmp_path).encode())


def _all_end(argument: bytes) -> bool:
    """Whether all processes with this in their command line end within a short time: a kill takes some."""
    until = time.monotonic() + 5.0
    while any(argument in _command_line(process) for process in Path("/proc").glob("[0-9]*")):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it ended in between
        return b""


def test_an_answer_without_fences_is_all_code() -> None:
    assert code_of("x = 1") == "x = 1"
    assert code_of("```py\nx = 1\n```\nand\n```\ny = 2\n```") == "x = 1\n\ny = 2\n"


@pytest.mark.parametrize(
    "answer",
    [
        "```" + " " * 200_000,
        "```" + "\t" * 200_000 + "x\n",
        "``` " * 100_000 + "\n",
        "`" * 200_000,
        "```\n" * 100_000,
    ],
)
def test_degenerate_answers_are_read_in_linear_time(answer: str) -> None:
    before = time.process_time()
    code_of(answer)

    assert time.process_time() - before < 1.0


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("```bash\npip install x\n```\nthen\n```python\nx = 1\n```", "x = 1\n"),
        ("Use ```x = 1``` or\n```python \r\nx = 2\r\n```", "x = 2\r\n"),
        ("````python\nx = 1\n````\n", "x = 1\n"),
        ("```Python3\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1", "```python\nx = 1"),
    ],
)
def test_code_is_read_from_python_blocks_only(answer: str, code: str) -> None:
    assert code_of(answer) == code


WRITES = """
for number in range(50):
    try:
        open({folder!r} + f"/{{number}}", "w").close()
    except OSError:
        pass
with open("mine", "w") as file:
    file.write("x")
import os, tempfile
tempfile.TemporaryFile().close()
os.mkdir("deeper"), os.rename("mine", "deeper/mine")
open(os.devnull, "w").write("x")
def add(a, b):
    return a + b
"""


@pytest.mark.skipif(not has_landlock(), reason="this kernel has no Landlock")
def test_an_answer_writes_to_its_own_folder_only(tmp_path: Path) -> None:
    assert judged(WRITES.format(folder=str(tmp_path))) == 1.0
    assert list(tmp_path.iterdir()) == []


DEVICES = "import os\nfor n in os.listdir():\n    os.remove(n)\n    os.symlink('/dev/zero', n)\nos._exit(0)"
NESTS = "import os\nwhile True:\n    os.mkdir('d')\n    os.chdir('d')"
LITTERS = "import os\nfor n in range(10 ** 9):\n    open(str(n), 'w').close()"


@pytest.mark.parametrize("answer", [DEVICES, NESTS, LITTERS])
def test_a_folder_full_of_anything_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert judged(answer) == 0.0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", ["memory_mib", "timeout_s", "workers"])
@pytest.mark.parametrize("wrong", [0, -1, 1.5, float("nan"), True, "5"])
def test_a_limit_that_is_no_whole_number_is_rejected(limit: str, wrong: object) -> None:
    with pytest.raises(InputError, match=f"^quality 'code', {limit}: Input should be"):
        labels.get("code", **{limit: wrong})


def test_limits_under_which_nothing_runs_are_reported() -> None:
    with pytest.raises(InputError, match="no code can be run under these limits here: MemoryError"):
        Code(memory_mib=1).label(["x = 1"], [""], [""])


def test_a_user_whose_processes_are_unlimited_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoNamespaces:
        def unshare(self, flags: int) -> int:
            return -1

    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: NoNamespaces())
    with pytest.raises(SystemExit, match="label as another user"):
        limit_processes()
