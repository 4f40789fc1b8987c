"""A several-node Ray cluster on one machine: a head that runs no replica, and one node for each pool.

    python -m cluster.local.nodes up [--config FILE] [--redis]    start, deploy, say where replicas run
    python -m cluster.local.nodes kill|vanish|join NODE           take a pool's node away, bring it back
    python -m cluster.local.nodes down                            leave nothing

Each node is a `ray start` of its own in a network namespace of its own, with its pool's labels,
custom resources and as many simulated GPUs as the pool asks. With `--redis` the head keeps its state
in a real Redis, so that `kill head` and `join head` work too. Needs root and `ip`; says so without.
"""

import argparse
import json
import os
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
from cluster.kuberay.worker_groups import Group, groups, pool_name
from cluster.local.dashboard_api import (
    DASHBOARD,
    HEAD_IP,
    HTTP_PORT,
    NETWORK,
    ClusterNotStarted,
    alive_nodes,
    deploy,
    replicas,
)
from cluster.local.run import ROOT, environment
from cluster.packing import asks
from router.errors import RouterError

CONFIG = ROOT / "cluster" / "local" / "pools.yaml"
STATE = ROOT / "var" / "nodes"
TEMPORARY = Path(tempfile.gettempdir()) / "to-router-nodes"
"""Ray's own folders, one for each node; short, since a socket's path may have 107 bytes."""
BRIDGE = "torouter0"
OUTSIDE_IP = f"{NETWORK}.254"
"""This machine's address on the bridge: where clients come from."""
HEAD, REDIS = "head", "redis"
NUMBERS = {HEAD: 1, REDIS: 253}
"""Last part of the addresses; pools count from 2."""
GCS_PORT, REDIS_PORT = 6399, 6379
CPUS = 2
OBJECT_STORE = 100 * 1024 * 1024
OUTLIVES_HEAD_S = "600"
UP_WITHIN_S = 120.0
ENDS_WITHIN_S = 20.0


def pools(config: Mapping[str, Any]) -> list[Group]:
    """The nodes that a configuration asks for: as many GPUs as all replicas at their maximum need."""
    found = groups(asks(config), RenderSettings())
    names = {group.name: group for group in found}
    sized = {
        name: PodSettings(cpus=CPUS, gpus=max(1, group.gpus * group.high) if group.gpus else None)
        for name, group in names.items()
    }
    return groups(asks(config), RenderSettings(pools=sized))


def addresses(config: Mapping[str, Any]) -> dict[str, str]:
    """Pool → address of its node."""
    return {group.name: f"{NETWORK}.{number}" for number, group in enumerate(pools(config), start=2)}


def head_command() -> list[str]:
    """The `ray start` of the head, where no replica runs."""
    return [
        _ray(), "start", "--head", f"--port={GCS_PORT}", f"--node-ip-address={HEAD_IP}", "--num-cpus=0",
        "--num-gpus=0", f"--dashboard-host={HEAD_IP}", f"--object-store-memory={OBJECT_STORE}",
        f"--temp-dir={TEMPORARY / HEAD}", "--block", "--disable-usage-stats",
    ]  # fmt: skip


def node_command(group: Group, ip: str) -> list[str]:
    """The `ray start` of a pool's node."""
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
    """A Redis in memory only: it outlives the head, which is all that is asked of it here."""
    return [
        "redis-server", "--port", str(REDIS_PORT), "--bind", f"{NETWORK}.{NUMBERS[REDIS]}",
        "--protected-mode", "no", "--save", "", "--appendonly", "no",
    ]  # fmt: skip


def _ray() -> str:
    return str(Path(sys.executable).parent / "ray")


class Machine:
    """The network and the processes of a local cluster; all it needs to know lies in `STATE`."""

    def __init__(self, state: Path = STATE) -> None:
        self._state = state
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        """Those that this process started, to be reaped by it."""

    def up(self, config: Mapping[str, Any], *, redis: bool = False) -> None:
        """Start head and nodes, and wait until all have joined.

        Args:
            redis: keep the head's state in a Redis, so that the others outlive it.
        """
        if os.geteuid() != 0 or shutil.which("ip") is None:
            raise ClusterNotStarted("network namespaces need root and the program `ip` (package iproute2)")
        if redis and shutil.which("redis-server") is None:
            raise ClusterNotStarted("redis-server is not installed (Debian: the package redis-server)")
        if _ip("link", "show", BRIDGE, check=False):
            raise ClusterNotStarted(f"{BRIDGE} is there already: run `python -m cluster.local.nodes down`")
        self._state.mkdir(parents=True, exist_ok=True)
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{OUTSIDE_IP}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        if redis:
            self._node(REDIS, NUMBERS[REDIS], redis_command())
        self._node(HEAD, NUMBERS[HEAD], head_command())
        self._await_nodes(1)
        found = addresses(config)
        for name in found:
            self.join(config, name)
        self._await_nodes(1 + len(found))

    def join(self, config: Mapping[str, Any], name: str) -> None:
        """Start a node that is not there, as a machine with its label that joins; `head` comes back."""
        if name == HEAD:
            self._node(HEAD, NUMBERS[HEAD], head_command())
            return
        numbered = {group.name: (number, group) for number, group in enumerate(pools(config), start=2)}
        if name not in numbered:
            raise ClusterNotStarted(f"there is no pool {name!r}; there are {', '.join(sorted(numbered))}")
        number, group = numbered[name]
        self._node(name, number, node_command(group, f"{NETWORK}.{number}"))

    def kill(self, name: str) -> None:
        """End a node's processes at once; the others' connections to it are closed by its kernel."""
        members = _pids(name)
        if not members:
            raise ClusterNotStarted(f"no node {name!r} runs here")
        for pid in members:
            _signal(pid, signal.SIGKILL)
        _await_end(members, 5)
        self._take_away(name)
        (self._state / f"{name}.pid").unlink(missing_ok=True)
        shutil.rmtree(TEMPORARY / name, ignore_errors=True)

    def vanish(self, name: str) -> None:
        """Take a node away without a word, as a power failure does: nobody is told, packets are lost."""
        for link in _links(name):
            _ip("link", "set", link, "down")
        self.kill(name)

    def down(self) -> None:
        """End every process and take the network away; nothing happens where nothing is."""
        if shutil.which("ip") is None:
            return  # nothing could have been started
        for name in sorted(_spaces(), key=lambda name: NUMBERS.get(name, 0)):
            members = _pids(name)
            for number in (signal.SIGTERM, signal.SIGKILL):
                for pid in members:
                    _signal(pid, number)
                _await_end(members, ENDS_WITHIN_S if number == signal.SIGTERM else 5)
            self._take_away(name)
        _ip("link", "del", BRIDGE, check=False)
        shutil.rmtree(self._state, ignore_errors=True)
        shutil.rmtree(TEMPORARY, ignore_errors=True)

    def _take_away(self, name: str) -> None:
        """The cable and the network of a node whose processes have ended."""
        for link in _links(name):
            _ip("link", "del", link, check=False)  # at once; with its namespace it would go some time later
        _ip("netns", "del", _space(name), check=False)
        if name in self._processes:
            self._processes.pop(name).wait()

    def _node(self, name: str, number: int, command: list[str]) -> None:
        """A network namespace at the bridge, and the process that is its machine."""
        space, (near, far) = _space(name), (f"tor{number}h", f"tor{number}n")
        _ip("netns", "add", space)
        # A fixed address: the others still know a killed node's by heart when it joins again.
        mac = f"02:00:00:00:77:{number:02x}"
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "address", mac, "netns", space)
        _ip("link", "set", near, "master", BRIDGE, "up")
        for args in (
            ("addr", "add", f"{NETWORK}.{number}/24", "dev", far),
            ("link", "set", far, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", space, *args)
        # HAProxy puts a node's id, 56 letters, between this folder and its socket's name.
        folder = TEMPORARY / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        with (self._state / f"{name}.log").open("ab") as log:
            process = self._processes[name] = subprocess.Popen(
                ["ip", "netns", "exec", space, *command],
                cwd=ROOT, env=self._environment(folder), stdout=log, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        (self._state / f"{name}.pid").write_text(str(process.pid), encoding="utf-8")

    def _environment(self, folder: Path) -> dict[str, str]:
        # Without a token: the bridge leads nowhere but to these namespaces.
        env = {
            **environment(HTTP_PORT, folder, fast=True),
            "RAY_AUTH_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
        }
        if (self._state / f"{REDIS}.pid").exists():
            env["RAY_REDIS_ADDRESS"] = f"{NETWORK}.{NUMBERS[REDIS]}:{REDIS_PORT}"
            env["RAY_gcs_rpc_server_reconnect_timeout_s"] = OUTLIVES_HEAD_S
        return env

    def _await_nodes(self, count: int) -> None:
        ends = time.monotonic() + UP_WITHIN_S
        seen = 0
        while time.monotonic() < ends:
            seen = len(alive_nodes())
            if seen >= count:
                return
            for file in self._state.glob("*.pid"):
                if not _runs(int(file.read_text(encoding="utf-8"))):
                    log = file.with_suffix(".log")
                    told = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                    raise ClusterNotStarted(f"node {file.stem} ended: {' '.join(told)} (all of it: {log})")
            time.sleep(0.5)
        raise ClusterNotStarted(
            f"{seen} of {count} nodes joined in {UP_WITHIN_S:g} s; see {self._state}/*.log"
        )


def _space(name: str) -> str:
    return f"to-router-{name}"


def _spaces() -> list[str]:
    """Names of the nodes that have a network, whether or not anything runs in it."""
    listed = subprocess.run(["ip", "-j", "netns", "list"], capture_output=True, text=True, check=False)
    prefix, rows = _space(""), json.loads(listed.stdout or "[]")
    return [row["name"].removeprefix(prefix) for row in rows if row["name"].startswith(prefix)]


def _links(name: str) -> list[str]:
    """The bridge's ends of a node's cables."""
    command = ["ip", "-j", "-n", _space(name), "link", "show", "type", "veth"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = json.loads(listed.stdout or "[]")
    return [f"{row['ifname'].removesuffix('n')}h" for row in rows if row]


def _ip(*arguments: str, check: bool = True) -> bool:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise ClusterNotStarted(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.returncode == 0


def _pids(name: str) -> list[int]:
    """Processes in a node's namespace."""
    command = ["ip", "netns", "pids", _space(name)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    return [int(pid) for pid in listed.stdout.split()]


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended by itself


def _await_end(pids: list[int], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and any(_runs(pid) for pid in pids):
        time.sleep(0.2)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"


def strays(config: Mapping[str, Any]) -> list[str]:
    """Replicas that run on another node than their pool's, in words."""
    found = addresses(config)
    home = {ask.app: found[pool_name(ask)] for ask in asks(config)}
    return [
        f"{app} runs on {where}, not on {home[app]}"
        for app, where, _ in replicas()
        if app in home and where != home[app]
    ]


def main(arguments: list[str] | None = None) -> int:
    """One verb; 2 with one clear line when it cannot be done."""
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
