"""Label code by its unit tests: the reference holds the tests, a subprocess with limits runs them.

The limits (processor time, memory, files, processes) keep a runaway answer from harming the machine:
nothing that it starts outlives it, and what it writes is bounded and removed. They are no sandbox: the
process may read files and open connections as the user who runs it, so label code of untrusted models on a
machine without secrets.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

from router.core import FloatArray
from router.errors import InputError
from router.validation import Count

FENCE = "```"
LANGUAGES = frozenset({"", "python", "py", "python3"})
MOST_FILE_BYTES = 1 << 20
MOST_FILES = 256
"""Files and folders that an answer may have in its folder at once."""
CHECK_S = 0.1
"""Time between two counts of them."""
OPEN_FILES = 64
GRACE_S = 2.0
"""Beyond the processor time, for an answer that waits instead of computing."""
PROCESS = Path(__file__).with_name("code_process.py")


class Code:
    """1 when the response's code passes the reference's tests, else 0.

    Args:
        timeout_s: processor seconds; as much again, and 2 s, on the clock.
        memory_mib: address space.
        workers: answers tried at once.

    Raises:
        InputError: this system knows no such limits.
    """

    def __init__(self, *, timeout_s: Count = 5, memory_mib: Count = 512, workers: Count = 2) -> None:
        if os.name != "posix":
            raise InputError(f"code is run under POSIX resource limits; this system is {os.name!r}")
        self.timeout_s = timeout_s
        self.memory_mib = memory_mib
        self.workers = workers

    def label(
        self, responses: Sequence[str], references: Sequence[str], queries: Sequence[str]
    ) -> FloatArray:
        """1 or 0 for each response.

        Raises:
            InputError: not even an empty answer runs here under these limits.
        """
        passed, error = self._run("", "")
        if not passed:
            raise InputError(f"no code can be run under these limits here: {error or 'no reason is known'}")
        with ThreadPoolExecutor(self.workers) as workers:
            return np.array([float(passed) for passed in workers.map(self._passes, responses, references)])

    def _passes(self, response: str, tests: str) -> bool:
        return self._run(code_of(response), tests)[0]

    def _run(self, code: str, tests: str) -> tuple[bool, str]:
        """Whether an answer passes, and the last line of its errors."""
        word = secrets.token_hex(16)
        with (
            _folder() as folder,
            # Files, because RLIMIT_FSIZE bounds them and no pipe; nameless ones, so that the answer cannot
            # put a device in their place.
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as errors,
        ):
            answer, checks = folder / "answer.py", folder / "tests.py"
            answer.write_text(code, encoding="utf-8", errors="replace")
            checks.write_text(tests, encoding="utf-8", errors="replace")
            limits = (self.timeout_s, self.memory_mib << 20, MOST_FILE_BYTES, OPEN_FILES)
            running = subprocess.Popen(
                [sys.executable, "-I", "-B", PROCESS, *map(str, limits), answer, checks],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=errors,
                cwd=folder,
                env={"PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8"},
                start_new_session=True,
            )
            try:
                ended = self._wait(running, f"{word}\n".encode(), folder)
            finally:
                _kill_group(running)
            passed = ended and running.returncode == 0 and _end_of(out).rstrip().endswith(word.encode())
            lines = _end_of(errors).decode("utf-8", "replace").strip().splitlines()
            return passed, lines[-1] if lines else ""

    def _wait(self, running: subprocess.Popen[bytes], word: bytes, folder: Path) -> bool:
        """Whether the process ends in its time, without more files than it may have."""
        until = time.monotonic() + 2 * self.timeout_s + GRACE_S
        unsent: bytes | None = word
        while time.monotonic() < until:
            try:
                running.communicate(unsent, timeout=CHECK_S)
            except subprocess.TimeoutExpired:
                unsent = None  # what was not yet written is with `running`
                if _has_too_many(folder):
                    return False
            else:
                return True
        return False


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder, removed with whatever an answer left in it."""
    folder = Path(tempfile.mkdtemp(prefix="to-router-code-"))
    try:
        yield folder
    finally:
        # Programs and not shutil.rmtree, which recurses: an answer can nest folders deeper than Python's
        # stack. The mode comes first: a folder without it cannot be emptied.
        for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
            subprocess.run([*command, "--", folder], check=False, stderr=subprocess.DEVNULL)


def _has_too_many(folder: Path) -> bool:
    count = 0
    for _, folders, files in os.walk(folder):
        count += len(folders) + len(files)
        if count > MOST_FILES:
            return True
    return False


def _end_of(file: IO[bytes]) -> bytes:
    """The last bytes of an output: enough for the word, or for the line of an error."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 1024))
    return file.read()


def _kill_group(leader: subprocess.Popen[bytes]) -> None:
    """The process and whatever it started, so that nothing outlives the labelling."""
    with contextlib.suppress(ProcessLookupError):  # the whole group is gone already
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


def code_of(response: str) -> str:
    """The code of a response: its fenced Python blocks one after another, or all of it where there is none.

    Each character is looked at a bounded number of times: a model that repeats itself writes any number of
    fences and blanks.
    """
    blocks: list[str] = []
    line_end, start = -1, response.find(FENCE)
    while start >= 0:
        while response.startswith("`", start + len(FENCE)):  # a longer fence
            start += 1
        if line_end < start and (line_end := response.find("\n", start)) < 0:
            break
        opened = start + len(FENCE)
        inside = response.find(FENCE, opened)
        if inside < 0:
            break
        # A fence that closes on its own line is code within a sentence; other languages do not count.
        if inside > line_end and response[opened:line_end].strip().lower() in LANGUAGES:
            blocks.append(response[line_end + 1 : inside])
        start = response.find(FENCE, inside + len(FENCE))
    return "\n".join(blocks) if blocks else response
