"""Label code by its unit tests: the reference holds the tests, a subprocess with limits runs them.

The limits (processor time, memory, files, processes) keep a runaway answer from harming the machine.
They are no sandbox: the process may read files and open connections as the user who runs it, so label
code of untrusted models on a machine without secrets. The limit on processes does
not bind root: label as another user. What an answer leaves running in its process group is killed.
"""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from router.core import FloatArray
from router.errors import InputError

_FENCE = re.compile(r"```[ \t]*(?:python|py|python3)?[ \t]*\r?\n(.*?)```", re.DOTALL | re.IGNORECASE)
MOST_OUTPUT_BYTES = 1 << 20
OPEN_FILES = 64
GRACE_S = 2.0
"""Beyond the processor time, for an answer that waits instead of computing."""
# Limits are set by the process itself, before it reads a line of the answer. The word that means "passed"
# comes over standard input, so that an early exit with status 0 does not count. It is not a name in the
# answer's module; malicious code can still find it in this process.
RUNNER = """
import resource, sys, types
seconds, memory, output, files = (int(value) for value in sys.argv[1:5])
word = sys.stdin.readline()
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_FSIZE, (output, output))
resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
with open(sys.argv[5], encoding="utf-8") as opened:
    answer = opened.read()
with open(sys.argv[6], encoding="utf-8") as opened:
    tests = opened.read()
module = sys.modules["answer"] = types.ModuleType("answer")  # dataclasses look their module up
exec(compile(answer, "answer.py", "exec"), module.__dict__)
exec(compile(tests, "tests.py", "exec"), module.__dict__)
sys.stdout.write("\\n" + word)
"""


class Code:
    """1 when the response's code passes the reference's tests, else 0.

    Args:
        timeout_s: processor seconds; as much again, and 2 s, on the clock.
        memory_mib: address space.
        workers: answers tried at once.

    Raises:
        InputError: a limit is not above 0, or this system knows no such limits.
    """

    def __init__(self, *, timeout_s: int = 5, memory_mib: int = 512, workers: int = 2) -> None:
        if min(timeout_s, memory_mib, workers) < 1:
            raise InputError(
                "timeout_s, memory_mib and workers must be whole numbers from 1, found "
                f"{timeout_s}, {memory_mib}, {workers}"
            )
        if os.name != "posix":
            raise InputError(f"code is run under POSIX resource limits; this system is {os.name!r}")
        self.timeout_s = timeout_s
        self.memory_mib = memory_mib
        self.workers = workers

    def label(
        self, responses: Sequence[str], references: Sequence[str], queries: Sequence[str]
    ) -> FloatArray:
        with ThreadPoolExecutor(self.workers) as workers:
            return np.array([float(passed) for passed in workers.map(self._passes, responses, references)])

    def _passes(self, response: str, tests: str) -> bool:
        word = secrets.token_hex(16)
        with tempfile.TemporaryDirectory(prefix="to-router-code-") as folder:
            answer, checks = Path(folder) / "answer.py", Path(folder) / "tests.py"
            answer.write_text(code_of(response), encoding="utf-8", errors="replace")
            checks.write_text(tests, encoding="utf-8", errors="replace")
            limits = (self.timeout_s, self.memory_mib << 20, MOST_OUTPUT_BYTES, OPEN_FILES)
            out = Path(folder) / "out"
            with out.open("wb") as written:  # a file, for RLIMIT_FSIZE bounds it and no pipe
                running = subprocess.Popen(
                    [sys.executable, "-I", "-c", RUNNER, *map(str, limits), str(answer), str(checks)],
                    stdin=subprocess.PIPE,
                    stdout=written,
                    stderr=subprocess.DEVNULL,
                    cwd=folder,
                    env={"PATH": os.defpath, "HOME": folder, "LANG": "C.UTF-8"},
                    start_new_session=True,
                )
                try:
                    running.communicate(f"{word}\n".encode(), timeout=2 * self.timeout_s + GRACE_S)
                except subprocess.TimeoutExpired:
                    return False
                finally:
                    _kill_group(running)
            return running.returncode == 0 and out.read_bytes().rstrip().endswith(word.encode())


def _kill_group(leader: subprocess.Popen[bytes]) -> None:
    """The process and whatever it started, so that nothing outlives the labelling."""
    with contextlib.suppress(ProcessLookupError):  # the whole group is gone already
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


def code_of(response: str) -> str:
    """The code of a response: its fenced blocks one after another, or all of it where there is none."""
    blocks = _FENCE.findall(response)
    return "\n".join(blocks) if blocks else response
