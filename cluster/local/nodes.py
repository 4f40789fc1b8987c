"""A several-node Ray cluster on one machine: a head that runs no replica, and one node for each pool.

    python -m cluster.local.nodes up [--config FILE]    start, deploy, say where replicas run
    python -m cluster.local.nodes kill|join POOL        take a pool's node away, bring it back
    python -m cluster.local.nodes down                  leave nothing

Each node is a `ray start` of its own in a network namespace of its own, with its pool's labels,
custom resources and as many simulated GPUs as the pool asks. Needs root and `ip`; says so without.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from cluster.local.run import ROOT, environment
from cluster.pools import asks
from cluster.render_groups import Group, groups
from cluster.render_settings import PodSettings, RenderSettings
from router.errors import RouterError

CONFIG = ROOT / "cluster" / "local" / "pools.yaml"
STATE = ROOT / "var" / "nodes"
BRIDGE, NETWORK = "torouter0", "10.213.77"
HEAD_IP = f"{NETWORK}.1"
GCS_PORT = 6399
DASHBOARD = f"http://{HEAD_IP}:8265"
HTTP_PORT = 8000
CPUS = 2
OBJECT_STORE = 100 * 1024 * 1024
UP_WITHIN_S = 120.0
DEPLOYED_WITHIN_S = 240.0
ENDS_WITHIN_S = 20.0


class ClusterNotStarted(RouterError):
    """A node, or the graph on it, did not come up; the message says what was seen last."""


def pools(config: Mapping[str, Any]) -> list[Group]:
    """The nodes that a configuration asks for: as many GPUs as all replicas at their maximum need."""
    found = groups(asks(config), RenderSettings())
    names = {group.name: group for group in found}
    sized = {
        name: PodSettings(cpus=CPUS, gpus=max(1, group.gpus * group.high) if group.gpus else None)
        for name, group in names.items()
    }
    return groups(asks(config), RenderSettings(pools=sized))


def node_command(group: Group, ip: str) -> list[str]:
    """The `ray start` of a pool's node."""
    command = [
        _ray(), "start", f"--address={HEAD_IP}:{GCS_PORT}", f"--node-ip-address={ip}", f"--num-cpus={CPUS}",
        f"--num-gpus={group.gpus}", f"--object-store-memory={OBJECT_STORE}", "--block",
    ]  # fmt: skip
    if group.labels:
        command.append("--labels=" + ",".join(f"{key}={value}" for key, value in group.labels.items()))
    if group.custom:
        command.append("--resources=" + json.dumps(dict(group.custom)))
    return command


def _ray() -> str:
    return str(Path(sys.executable).parent / "ray")


class Machine:
    """The network and the processes of a local cluster; all it needs to know lies in `STATE`."""

    def __init__(self, state: Path = STATE) -> None:
        self._state = state

    def up(self, config: Mapping[str, Any]) -> None:
        """Start head and nodes, and wait until all have joined."""
        if os.geteuid() != 0 or shutil.which("ip") is None:
            raise ClusterNotStarted("network namespaces need root and the program `ip` (package iproute2)")
        if _ip("link", "show", BRIDGE, check=False):
            raise ClusterNotStarted(f"{BRIDGE} is there already: run `python -m cluster.local.nodes down`")
        self._state.mkdir(parents=True, exist_ok=True)
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{HEAD_IP}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        wanted = pools(config)
        head = [
            _ray(), "start", "--head", f"--port={GCS_PORT}", f"--node-ip-address={HEAD_IP}", "--num-cpus=0",
            "--num-gpus=0", f"--dashboard-host={HEAD_IP}", f"--object-store-memory={OBJECT_STORE}",
            "--block", "--disable-usage-stats",
        ]  # fmt: skip
        self._start("head", head, None)
        self._await_nodes(1)
        for number, group in enumerate(wanted, start=2):
            self._node(group, number)
        self._await_nodes(1 + len(wanted))

    def join(self, config: Mapping[str, Any], name: str) -> None:
        """Bring a killed node back, as a machine with its label that joins."""
        numbered = {group.name: (group, number) for number, group in enumerate(pools(config), start=2)}
        if name not in numbered:
            raise ClusterNotStarted(f"there is no pool {name!r}; there are {', '.join(sorted(numbered))}")
        self._node(*numbered[name])

    def kill(self, name: str) -> None:
        """End a node at once, as a power failure does."""
        members = _pids(name)
        for pid in members:
            _signal(pid, signal.SIGKILL)
        _await_end(members, 5)
        _ip("netns", "del", _space(name), check=False)
        (self._state / f"{name}.pid").unlink(missing_ok=True)

    def down(self) -> None:
        """End every process and take the network away; nothing happens where nothing is."""
        names = [file.stem for file in self._state.glob("*.pid")]
        for name in sorted(names, key=lambda name: name == "head"):
            file = self._state / f"{name}.pid"
            members = [*_pids(name), *_group(int(file.read_text(encoding="utf-8")))]
            for number in (signal.SIGTERM, signal.SIGKILL):
                for pid in members:
                    _signal(pid, number)
                _await_end(members, ENDS_WITHIN_S if number == signal.SIGTERM else 5)
            _ip("netns", "del", _space(name), check=False)
        _ip("link", "del", BRIDGE, check=False)
        shutil.rmtree(self._state, ignore_errors=True)

    def _node(self, group: Group, number: int) -> None:
        space, near, far = _space(group.name), f"tor{number}h", f"tor{number}n"
        ip = f"{NETWORK}.{number}"
        _ip("netns", "add", space)
        # A fixed address: the others still know a killed node's by heart when it joins again.
        mac = f"02:00:00:00:77:{number:02x}"
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "address", mac, "netns", space)
        _ip("link", "set", near, "master", BRIDGE, "up")
        for args in (
            ("addr", "add", f"{ip}/24", "dev", far),
            ("link", "set", far, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", space, *args)
        self._start(group.name, node_command(group, ip), space)

    def _start(self, name: str, command: list[str], space: str | None) -> None:
        folder = self._state / name
        folder.mkdir(parents=True, exist_ok=True)
        # Without a token: the bridge leads nowhere but to these namespaces.
        env = {
            **environment(HTTP_PORT, folder, fast=True),
            "RAY_AUTH_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
        }
        with (self._state / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*(["ip", "netns", "exec", space] if space else []), *command],
                cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        (self._state / f"{name}.pid").write_text(str(process.pid), encoding="utf-8")

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


def _group(leader: int) -> list[int]:
    """Processes of the session that a `ray start` leads, and their children's."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            session = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[3])
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
        if session == leader:
            found.append(int(folder.name))
    return found


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


# --- what the cluster says of itself ---


def alive_nodes() -> dict[str, dict[str, Any]]:
    """Node id → its labels, address and resources; empty while nobody answers."""
    return {str(row["node_id"]): row for row in _listed("nodes") if row.get("state") == "ALIVE"}


def _listed(what: str) -> list[dict[str, Any]]:
    try:
        answer = httpx.get(f"{DASHBOARD}/api/v0/{what}", params={"detail": "1", "limit": "10000"}, timeout=20)
        rows: list[dict[str, Any]] = answer.json()["data"]["result"]["result"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return []
    return rows


def replicas() -> list[tuple[str, str, int]]:
    """(application, address of its node, process id) of every living replica."""
    address = {node: str(row.get("node_ip")) for node, row in alive_nodes().items()}
    found = []
    for row in _listed("actors"):
        parts = str(row.get("class_name")).split(":")
        if row.get("state") == "ALIVE" and parts[0] == "ServeReplica":
            found.append((parts[1], address.get(str(row.get("node_id")), "?"), int(row.get("pid") or 0)))
    return sorted(found)


def strays(config: Mapping[str, Any]) -> list[str]:
    """Replicas that run on another node than their pool's, in words."""
    numbers = {group.name: number for number, group in enumerate(pools(config), start=2)}
    from cluster.render_groups import pool_name

    home = {ask.app: f"{NETWORK}.{numbers[pool_name(ask)]}" for ask in asks(config)}
    return [
        f"{app} runs on {where}, not on {home[app]}"
        for app, where, _ in replicas()
        if app in home and where != home[app]
    ]


def deploy(config: Mapping[str, Any]) -> float:
    """Deploy and wait until every application runs; seconds that took.

    Raises:
        ClusterNotStarted: Serve refuses the configuration, or is not there in time.
    """
    started = time.monotonic()
    answer = httpx.put(f"{DASHBOARD}/api/serve/applications/", json=dict(config), timeout=60)
    if answer.status_code != 200:
        raise ClusterNotStarted(f"Serve refuses the configuration: {answer.text:.500}")
    wanted = {str(app["name"]) for app in config["applications"]}
    states: dict[str, str] = {}
    while time.monotonic() - started < DEPLOYED_WITHIN_S:
        states = application_states()
        if states.keys() == wanted and set(states.values()) == {"RUNNING"}:
            return time.monotonic() - started
        time.sleep(0.25)
    raise ClusterNotStarted(f"not all run after {DEPLOYED_WITHIN_S:g} s: {states}")


def application_states() -> dict[str, str]:
    """Application → its status, as Serve tells it."""
    answer = httpx.get(f"{DASHBOARD}/api/serve/applications/", timeout=30)
    return {name: str(app["status"]) for name, app in answer.json()["applications"].items()}


def main(arguments: list[str] | None = None) -> int:
    """One verb; 2 with one clear line when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m cluster.local.nodes", description=__doc__)
    parser.add_argument("verb", choices=("up", "down", "kill", "join", "where"))
    parser.add_argument("pool", nargs="?")
    parser.add_argument("--config", type=Path, default=CONFIG)
    options = parser.parse_args(arguments)
    config = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    machine = Machine()
    try:
        if options.verb in {"kill", "join"} and not options.pool:
            raise ClusterNotStarted(f"{options.verb} which pool?")
        if options.verb == "up":
            machine.up(config)
            print(f"{len(alive_nodes())} nodes; dashboard {DASHBOARD}")
            print(f"deployed in {deploy(config):.0f} s; http://{HEAD_IP}:{HTTP_PORT}/v1")
        elif options.verb == "down":
            machine.down()
        elif options.verb == "kill":
            machine.kill(options.pool)
        elif options.verb == "join":
            machine.join(config, options.pool)
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
