"""Serve the graph on this machine: check the configuration, start, wait until ready, stop cleanly.

    python -m cluster.local.run [--config FILE] [--host ADDRESS] [--port N] [--transport fast|plain]

Starts `serve run` as a child process with the flags of cluster/transport.env and prints its progress;
Ctrl-C ends Serve and Ray too.
"""

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from cluster.check.config import check_file
from cluster.ingress import longest_response_s
from cluster.local.readiness import wait_until_ready
from cluster.transport import AUTH_MODE, CALLBACK, HAPROXY, HARD_STOP, transport_flags

ROOT = Path(__file__).resolve().parents[2]
STOP_WITHIN_S = 90.0
PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when its parent dies (prctl(2))."""
STATS_PORT_OFFSET = 404
METRICS_PORT_OFFSET = 1101
"""HAProxy's own two ports have these offsets from the HTTP port: 8000 → 8404 and 9101."""
SEVERAL_NODES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Whether other machines may join the cluster that Ray starts. Despite its name Ray reads it on every system;
with `0` the node's address is 127.0.0.1, and Ray's own servers listen there only. Programs that join need it
too: without it they look for the cluster at this machine's other address."""


def with_port(config: Path, port: int | None, folder: Path, *, host: str | None = None) -> tuple[Path, int]:
    """Write the configuration with another address to a folder.

    Returns:
        The file, which is the original if nothing changes, and the port in effect.
    """
    data = yaml.safe_load(config.read_text(encoding="utf-8"))
    options = data.setdefault("http_options", {})
    in_effect = int(options.get("port", 8000)) if port is None else port
    if port is None and host is None:
        return config, in_effect
    options["port"] = in_effect
    if host is not None:
        options["host"] = host
    changed = folder / config.name
    changed.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return changed, in_effect


def environment(
    port: int, folder: Path, *, fast: bool, config: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Return the environment for `serve run`, with sockets and ports that differ between two runs."""
    env = {**os.environ, "TO_ROUTER_ROOT": os.environ.get("TO_ROUTER_ROOT", str(ROOT))}
    # Of this run only: an earlier run may have had another graph.
    env.setdefault("TO_ROUTER_STATE", str(folder / "state"))
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    flags = transport_flags()
    auth = flags.pop(AUTH_MODE)
    env.setdefault(AUTH_MODE, auth)  # explicit: the default of a cluster that Ray starts itself
    if "RAY_ADDRESS" not in env:
        env.setdefault(SEVERAL_NODES, "0")
    env[CALLBACK] = flags[CALLBACK]  # the middleware is needed around both transports
    if fast:
        env |= {**flags, HARD_STOP: str(longest_response_s(config or {}))}
        # Serve keeps a stopping replica open for 30 s, until remote load balancers have removed it;
        # here there is one, on this machine, and it retries a connection that fails.
        env.setdefault("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "3")
        env.setdefault("RAY_SERVE_HAPROXY_BINARY_PATH", str(HAPROXY))
        env |= {
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(port + STATS_PORT_OFFSET),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(port + METRICS_PORT_OFFSET),
        }
    return env


@contextmanager
def serving(
    config: Path,
    *,
    host: str | None = None,
    port: int | None = None,
    fast: bool = True,
    log: Path | None = None,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run `serve run` as a child process; yields its URL and process, and stops it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="to-router-"))
    config, in_effect = with_port(config, port, folder, host=host)
    log = log or folder / "serve.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "serve"), "run", str(config)],
            cwd=ROOT,
            env=environment(in_effect, folder, fast=fast, config=yaml.safe_load(config.read_text("utf-8"))),
            stdout=out,
            stderr=subprocess.STDOUT,
            # A process group of its own: Ctrl-C reaches it once, from us; a shell may ignore SIGINT for it.
            start_new_session=True,
            preexec_fn=ends_with_us,  # noqa: PLW1509 - this program runs no threads yet
        )
        try:
            yield f"http://127.0.0.1:{in_effect}", process
        finally:
            stop(process)
            shutil.rmtree(folder, ignore_errors=True)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop `serve run` as Ctrl-C does: Serve drains, then Ray stops; kill it only if it hangs."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl-C; 2 if the configuration is invalid, 1 if the graph does not start."""
    parser = argparse.ArgumentParser(prog="python -m cluster.local.run", description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "serve_config.yaml")
    parser.add_argument("--host", help="address to listen on, instead of the file's http_options.host")
    parser.add_argument("--port", type=int, default=None, help="instead of the file's http_options.port")
    parser.add_argument("--transport", choices=("fast", "plain"), default="fast")
    parser.add_argument("--log", type=Path, default=ROOT / "var" / "serve.log")
    options = parser.parse_args(arguments)

    findings = check_file(options.config)
    for finding in findings:
        print(finding, file=sys.stderr)
    if any(finding.is_error for finding in findings):
        return 2

    interrupted = _Interrupted()
    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    with serving(
        options.config,
        host=options.host,
        port=options.port,
        fast=options.transport == "fast",
        log=options.log,
    ) as (url, process):
        print(f"log: {options.log}")

        def running() -> bool:
            return process.poll() is None and not interrupted.received

        if wait_until_ready(url, running, lambda line: print(line, flush=True)):
            print(f'ready: {url}/v1 — model "auto" routes; Ctrl-C stops', flush=True)
            print("`serve status` and `serve deploy` need RAY_AUTH_MODE=token in their environment;")
            print(f"`ray status` and programs that join with `ray.init` need {SEVERAL_NODES}=0 too")
            while running():
                time.sleep(0.5)
        elif not interrupted.received:
            print(f"not ready; the end of {options.log}:", file=sys.stderr)
            print(
                "\n".join(options.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]),
                file=sys.stderr,
            )
            return 1
        print("stopping …", flush=True)
    print("stopped")
    return 0


class _Interrupted:
    """Whether Ctrl-C or a SIGTERM was received."""

    def __init__(self) -> None:
        self.received = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received = True


def ends_with_us() -> None:
    """In a child before its command starts: Ctrl-C ends it, and so does the death of this program."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
