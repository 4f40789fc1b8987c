"""Start of the graph on this machine: ports, flags, and a configuration with errors."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from cluster.check.config import check_file
from cluster.local import run
from cluster.transport import transport_flags


@pytest.mark.parametrize("name", ["simulated", "claims"])
def test_a_graph_of_this_folder_has_no_errors(name: str) -> None:
    assert check_file(run.ROOT / "cluster" / "local" / f"{name}.yaml") == []


def test_two_runs_on_one_machine_have_own_sockets_and_ports(tmp_path: Path) -> None:
    first = run.environment(8000, tmp_path / "a", fast=True)
    second = run.environment(8010, tmp_path / "b", fast=True)
    shared = {*transport_flags(), "RAY_SERVE_HAPROXY_BINARY_PATH"}
    ours = [name for name in first if name.startswith("RAY_SERVE_HAPROXY") and name not in shared]

    assert first["RAY_SERVE_HAPROXY_STATS_PORT"] == "8404"
    assert all(first[name] != second[name] for name in ours)
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in run.environment(8000, tmp_path, fast=False)


def test_the_port_is_changed_in_a_copy(tmp_path: Path) -> None:
    file = run.ROOT / "serve_config.yaml"
    same, port = run.with_port(file, None, tmp_path)
    other, changed = run.with_port(file, 9000, tmp_path)

    assert (same, port) == (file, 8000)
    assert changed == 9000
    assert yaml.safe_load(other.read_text())["http_options"] == {"host": "127.0.0.1", "port": 9000}


def test_the_address_is_changed_for_a_container(tmp_path: Path) -> None:
    file, everywhere = run.ROOT / "serve_config.yaml", "0.0.0.0"  # noqa: S104 - only written to a file
    changed, port = run.with_port(file, None, tmp_path, host=everywhere)

    assert port == 8000
    assert yaml.safe_load(changed.read_text())["http_options"] == {"host": everywhere, "port": 8000}


def test_an_unknown_key_exits_with_2_and_the_keys_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = yaml.safe_load((run.ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    data["applications"][0]["args"]["router"]["max_batch"] = 3
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")

    assert run.main(["--config", str(file)]) == 2
    assert "to-router.args.router.max_batch: unknown key" in capsys.readouterr().err


def test_a_graph_ends_when_its_program_is_killed() -> None:
    program = (
        "import subprocess, sys\n"
        "from cluster.local.run import ends_with_us\n"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True, preexec_fn=ends_with_us)\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=run.ROOT
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)

    try:
        ended = has_ended(child, 30.0)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()

    assert ended


def has_ended(process: psutil.Process, timeout_s: float) -> bool:
    """Whether a process that is not ours ends in time; a zombie has ended, for PID 1 may reap none."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False
