"""Start a system under test, wait until it responds, end it with all its children.

Also reads memory and processor time of processes. Knows nothing of the system that it starts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

STOP_WITHIN_S = 100.0


class NotStarted(RuntimeError):
    """A process ended, or did not respond in time."""


@contextmanager
def running(
    command: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    within_s: float = 300.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in its own process group until it is ready; ended by SIGTERM, killed if it hangs.

    Raises:
        NotStarted: it ended or was not ready in time; the message contains the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(command),
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        wait_for(process, ready, within_s, log)
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that `running` started, and its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_WITHIN_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def responds(url: str) -> Callable[[], bool]:
    """Return a check whether a GET of `url` returns 200."""

    def check() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - an address of our own
                return bool(response.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    return check


def wait_for(process: subprocess.Popen[bytes], ready: Callable[[], bool], within_s: float, log: Path) -> None:
    """Wait until a process is ready.

    Raises:
        NotStarted: it ended, or took longer.
    """
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise NotStarted(f"{process.args!r} ended with {process.returncode}; {_end_of(log)}")
        if ready():
            return
        time.sleep(0.5)
    raise NotStarted(f"{process.args!r} was not ready within {within_s:.0f} s; {_end_of(log)}")


def _end_of(log: Path) -> str:
    return f"the end of {log}:\n" + "\n".join(
        log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    )


def titles() -> Iterator[tuple[psutil.Process, str]]:
    """Yield every process of this machine with its command line or title."""
    for process in psutil.process_iter(["cmdline"]):
        yield process, " ".join(process.info["cmdline"] or ())


def find(*words: str) -> list[int]:
    """Return the processes whose command line or title contains all `words`."""
    matching = (process.pid for process, title in titles() if all(word in title for word in words))
    return sorted(pid for pid in matching if pid != os.getpid())


def resident_mb(pid: int) -> float:
    """Return the resident memory of one process in megabytes (10⁶ bytes), shared pages included.

    Raises:
        psutil.NoSuchProcess: there is no such process.
    """
    return float(psutil.Process(pid).memory_info().rss / 1e6)


def cpu_s(pid: int) -> float:
    """Return the processor time that one process has used.

    Raises:
        psutil.NoSuchProcess: there is no such process.
    """
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
