"""A several-node Ray cluster on one machine: a head that runs no replica, and one node for each pool.

    python -m cluster.local.nodes up [--config FILE] [--redis]    start, deploy, print where replicas run
    python -m cluster.local.nodes kill|vanish|join NODE           remove a pool's node, start it again
    python -m cluster.local.nodes down                            end everything

Each node is a `ray start` in a network namespace of its own, with its pool's labels, custom resources
and as many simulated GPUs as the pool needs. With `--redis` the head keeps its state in a real Redis, so
that `kill head` and `join head` work too. Needs root and `ip`.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.kuberay.settings import PodSettings, RenderSettings
from cluster.kuberay.worker_groups import WorkerGroup, pool_name, worker_groups
from cluster.local import network
from cluster.local.dashboard_api import DASHBOARD, HTTP_PORT, alive_nodes, deploy, replicas
from cluster.local.network import HEAD_IP, ClusterNotStarted
from cluster.local.run import ROOT, environment
from cluster.packing import demands
from router.errors import RouterError

CONFIG = ROOT / "cluster" / "local" / "pools.yaml"
STATE = ROOT / "var" / "nodes"
TEMPORARY = Path(tempfile.gettempdir()) / "to-router-nodes"
"""Ray's own folders, one for each node; short, because a socket's path may have 107 bytes."""
HEAD, REDIS = "head", "redis"
NUMBERS = {HEAD: 1, REDIS: 253}
"""Last part of the addresses; pools count from 2."""
GCS_PORT, REDIS_PORT = 6399, 6379
CPUS = 2
OBJECT_STORE = 100 * 1024 * 1024
RECONNECT_S = "600"
"""How long nodes outlive a head that is down."""
UP_WITHIN_S = 120.0
ENDS_WITHIN_S = 20.0


def pools(config: Mapping[str, Any]) -> list[WorkerGroup]:
    """Return the nodes that a configuration needs, with the GPUs of all replicas at their maximum."""
    needs = demands(config)
    sized = {
        group.name: PodSettings(cpus=CPUS, gpus=max(1, group.gpus * group.high) if group.gpus else None)
        for group in worker_groups(needs, RenderSettings())
    }
    return worker_groups(needs, RenderSettings(pools=sized))


def addresses(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the address of each pool's node."""
    return {group.name: network.address(number) for number, group in enumerate(pools(config), start=2)}


def strays(config: Mapping[str, Any]) -> list[str]:
    """Describe the replicas that run on another node than their pool's."""
    by_pool = addresses(config)
    home = {demand.app: by_pool[pool_name(demand)] for demand in demands(config)}
    return [
        f"{app} runs on {where}, not on {home[app]}"
        for app, where, _ in replicas()
        if app in home and where != home[app]
    ]


def head_command() -> list[str]:
    """Return the `ray start` of the head, which runs no replica."""
    return [
        _ray(), "start", "--head", f"--port={GCS_PORT}", f"--node-ip-address={HEAD_IP}", "--num-cpus=0",
        "--num-gpus=0", f"--dashboard-host={HEAD_IP}", f"--object-store-memory={OBJECT_STORE}",
        f"--temp-dir={TEMPORARY / HEAD}", "--block", "--disable-usage-stats",
    ]  # fmt: skip


def node_command(group: WorkerGroup, ip: str) -> list[str]:
    """Return the `ray start` of a pool's node."""
    command = [
        _ray(), "start", f"--address={HEAD_IP}:{GCS_PORT}", f"--node-ip-address={ip}", f"--num-cpus={CPUS}",
        f"--num-gpus={group.gpus}", f"--object-store-memory={OBJECT_STORE}",
        f"--temp-dir={TEMPORARY / group.name}", "--block",
    ]  # fmt: skip
    if group.labels:
        command.append("--labels=" + ",".join(f"{key}={value}" for key, value in group.labels.items()))
    if group.custom:
        command.append("--resources=" + json.dumps(dict(group.custom)))
    return command


def redis_command() -> list[str]:
    """Return the command of a Redis in memory only: it has to outlive the head, nothing more."""
    return [
        "redis-server", "--port", str(REDIS_PORT), "--bind", network.address(NUMBERS[REDIS]),
        "--protected-mode", "no", "--save", "", "--appendonly", "no",
    ]  # fmt: skip


def _ray() -> str:
    return str(Path(sys.executable).parent / "ray")


class Machine:
    """The processes of a local cluster; all its state is in a folder, so that any process can end it."""

    def __init__(self, state: Path = STATE) -> None:
        self._state = state
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        """Children of this process, which has to reap them."""

    def up(self, config: Mapping[str, Any], *, redis: bool = False) -> None:
        """Start head and nodes, and wait until all have joined.

        Args:
            config: a serve_config.yaml; each of its pools becomes a node.
            redis: keep the head's state in a Redis, so that the nodes outlive the head.

        Raises:
            ClusterNotStarted: something is not installed, exists already or did not start in time.
        """
        if redis and shutil.which("redis-server") is None:
            raise ClusterNotStarted("redis-server is not installed (Debian: the package redis-server)")
        network.open_network()
        self._state.mkdir(parents=True, exist_ok=True)
        if redis:
            self._start(REDIS, NUMBERS[REDIS], redis_command())
        self._start(HEAD, NUMBERS[HEAD], head_command())
        self._await_nodes(1)
        names = addresses(config)
        for name in names:
            self.join(config, name)
        self._await_nodes(1 + len(names))

    def join(self, config: Mapping[str, Any], name: str) -> None:
        """Start the node of a pool, or the head, that does not run.

        Raises:
            ClusterNotStarted: no pool has this name.
        """
        if name == HEAD:
            self._start(HEAD, NUMBERS[HEAD], head_command())
            return
        numbered = {group.name: (number, group) for number, group in enumerate(pools(config), start=2)}
        if name not in numbered:
            raise ClusterNotStarted(f"there is no pool {name!r}; there are {', '.join(sorted(numbered))}")
        number, group = numbered[name]
        self._start(name, number, node_command(group, network.address(number)))

    def kill(self, name: str) -> None:
        """Kill a node's processes; its kernel closes the connections to the other nodes.

        Raises:
            ClusterNotStarted: no such node runs.
        """
        members = network.processes(name)
        if not members:
            raise ClusterNotStarted(f"no node {name!r} runs here")
        network.end_processes(members, signal.SIGKILL, network.KILLED_WITHIN_S)
        self._remove(name)
        (self._state / f"{name}.pid").unlink(missing_ok=True)
        shutil.rmtree(TEMPORARY / name, ignore_errors=True)

    def vanish(self, name: str) -> None:
        """Cut a node off before killing it, as a power failure does: connections stay open, packets are lost.

        Raises:
            ClusterNotStarted: no such node runs.
        """
        network.unplug(name)
        self.kill(name)

    def down(self) -> None:
        """End every process and remove the network; do nothing if nothing runs."""
        if not network.installed():
            return  # nothing could have been started
        for name in sorted(network.namespaces(), key=lambda name: NUMBERS.get(name, 0)):
            members = network.processes(name)
            network.end_processes(members, signal.SIGTERM, ENDS_WITHIN_S)
            network.end_processes(members, signal.SIGKILL, network.KILLED_WITHIN_S)
            self._remove(name)
        network.close_network()
        shutil.rmtree(self._state, ignore_errors=True)
        shutil.rmtree(TEMPORARY, ignore_errors=True)

    def _remove(self, name: str) -> None:
        network.remove_namespace(name)
        if name in self._processes:
            self._processes.pop(name).wait()

    def _start(self, name: str, number: int, command: list[str]) -> None:
        """Create a network namespace and start the process in it that acts as its machine."""
        network.add_namespace(name, number)
        # HAProxy puts a node's id, 56 letters, between this folder and its socket's name.
        folder = TEMPORARY / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        with (self._state / f"{name}.log").open("ab") as log:
            process = self._processes[name] = subprocess.Popen(
                network.command_in(name, command),
                cwd=ROOT, env=self._environment(folder), stdout=log, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        (self._state / f"{name}.pid").write_text(str(process.pid), encoding="utf-8")

    def _environment(self, folder: Path) -> dict[str, str]:
        # Without a token: the bridge connects these namespaces only.
        env = {
            **environment(HTTP_PORT, folder, fast=True),
            "RAY_AUTH_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
        }
        if (self._state / f"{REDIS}.pid").exists():
            env["RAY_REDIS_ADDRESS"] = f"{network.address(NUMBERS[REDIS])}:{REDIS_PORT}"
            env["RAY_gcs_rpc_server_reconnect_timeout_s"] = RECONNECT_S
        return env

    def _await_nodes(self, count: int) -> None:
        ends = time.monotonic() + UP_WITHIN_S
        joined = 0
        while time.monotonic() < ends:
            joined = len(alive_nodes())
            if joined >= count:
                return
            for file in self._state.glob("*.pid"):
                if not network.runs(int(file.read_text(encoding="utf-8"))):
                    log = file.with_suffix(".log")
                    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                    raise ClusterNotStarted(f"node {file.stem} ended: {' '.join(last)} (whole log: {log})")
            time.sleep(0.5)
        raise ClusterNotStarted(
            f"{joined} of {count} nodes joined in {UP_WITHIN_S:g} s; see {self._state}/*.log"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; 2 with one clear line if it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m cluster.local.nodes", description=__doc__)
    parser.add_argument("verb", choices=("up", "down", "kill", "vanish", "join", "where"))
    parser.add_argument("node", nargs="?", help="a pool's name, or `head`")
    parser.add_argument("--redis", action="store_true", help="keep the head's state in a Redis")
    parser.add_argument("--config", type=Path, default=CONFIG)
    options = parser.parse_args(arguments)
    config = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    machine = Machine()
    try:
        if options.verb in {"kill", "vanish", "join"} and not options.node:
            raise ClusterNotStarted(f"{options.verb} which node?")
        if options.verb == "up":
            machine.up(config, redis=options.redis)
            print(f"{len(alive_nodes())} nodes; dashboard {DASHBOARD}")
            print(f"deployed in {deploy(config):.0f} s; http://{HEAD_IP}:{HTTP_PORT}/v1")
        elif options.verb == "down":
            machine.down()
        elif options.verb == "kill":
            machine.kill(options.node)
        elif options.verb == "vanish":
            machine.vanish(options.node)
        elif options.verb == "join":
            machine.join(config, options.node)
        if options.verb in {"up", "where"}:
            for app, where, pid in replicas():
                print(f"{where}\t{app}\t{pid}")
            for stray in strays(config):
                print(f"stray: {stray}", file=sys.stderr)
    except RouterError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
