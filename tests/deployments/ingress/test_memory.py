"""Memory that large bodies took is the system's again once they are gone."""

import platform
import subprocess
import sys

import pytest

MEASURE = """
import ctypes, threading, psutil
from deployments.ingress.memory import return_large_blocks

def resident():
    return psutil.Process().memory_info().rss / 2**20

assert return_large_blocks()
before = resident()
kept = []

def use():
    for _ in range(20):
        blocks = [b"x" * (16 * 2**20) for _ in range(2)]
        kept.append(bytearray(4096))

threads = [threading.Thread(target=use) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_large_blocks_are_the_systems_once_they_are_free() -> None:
    measured = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)

    assert float(measured.stdout) < 16
