"""Processes and addresses of the local cluster's nodes; creates no namespace."""

import signal
import subprocess
import sys

import psutil
import pytest

from cluster.local.network import HEAD_IP, address, command_in, end_processes, processes, runs


def test_the_head_has_the_first_address() -> None:
    assert address(1) == HEAD_IP


def test_a_command_runs_in_the_namespace_of_its_node() -> None:
    assert command_in("math", ["ray", "start"]) == ["ip", "netns", "exec", "to-router-math", "ray", "start"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_ends_by_a_signal_within_its_time(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        assert runs(process.pid)

        end_processes([psutil.Process(process.pid)], number, 10.0)

        assert not runs(process.pid)  # a zombie until it is reaped
        assert process.wait() == -number


def test_a_process_that_ignores_a_signal_is_not_awaited_forever() -> None:
    code = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()

        end_processes([psutil.Process(process.pid)], signal.SIGTERM, 0.3)

        assert runs(process.pid)
        process.kill()


def test_a_node_that_does_not_run_has_no_processes() -> None:
    if psutil.LINUX and subprocess.run(["which", "ip"], capture_output=True, check=False).returncode:
        pytest.skip("the program `ip` is not installed")

    assert processes("no-such-node") == []
