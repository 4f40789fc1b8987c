"""Network namespaces on one bridge, each standing for a machine. Knows no Ray and no configuration."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence

import psutil

from router.errors import RouterError

NETWORK = "10.213.77"
HEAD_IP = f"{NETWORK}.1"
OUTSIDE_IP = f"{NETWORK}.254"
"""This machine's address on the bridge: the source address of clients."""
BRIDGE = "torouter0"
KILLED_WITHIN_S = 5.0


class ClusterNotStarted(RouterError):
    """A node, or the graph on it, did not start; the message holds the last state."""


def address(number: int) -> str:
    """Return the address of the namespace with this number."""
    return f"{NETWORK}.{number}"


def open_network() -> None:
    """Create the bridge.

    Raises:
        ClusterNotStarted: no permission, no `ip`, or the bridge exists.
    """
    if os.geteuid() != 0 or not installed():
        raise ClusterNotStarted("network namespaces need root and the program `ip` (package iproute2)")
    if _ip("link", "show", BRIDGE, check=False):
        raise ClusterNotStarted(f"{BRIDGE} exists already: run `python -m cluster.local.nodes down`")
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("addr", "add", f"{OUTSIDE_IP}/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")


def close_network() -> None:
    """Remove the bridge, if there is one."""
    _ip("link", "del", BRIDGE, check=False)


def installed() -> bool:
    """Whether the program `ip` is installed."""
    return shutil.which("ip") is not None


def add_namespace(name: str, number: int) -> None:
    """Create a namespace and its cable to the bridge."""
    space, (near, far) = _space(name), (f"tor{number}h", f"tor{number}n")
    _ip("netns", "add", space)
    # A fixed MAC address: when a killed node joins again, the others still have it in their ARP caches.
    mac = f"02:00:00:00:77:{number:02x}"
    _ip("link", "add", near, "type", "veth", "peer", "name", far, "address", mac, "netns", space)
    _ip("link", "set", near, "master", BRIDGE, "up")
    for args in (
        ("addr", "add", f"{address(number)}/24", "dev", far),
        ("link", "set", far, "up"),
        ("link", "set", "lo", "up"),
    ):
        _ip("-n", space, *args)


def remove_namespace(name: str) -> None:
    """Remove the namespace and the cable of a node whose processes have ended."""
    for link in _links(name):
        _ip("link", "del", link, check=False)  # immediate; with its namespace it would be removed later
    _ip("netns", "del", _space(name), check=False)


def unplug(name: str) -> None:
    """Take a node's cable down: its packets are lost, and its connections stay open on the other side."""
    for link in _links(name):
        _ip("link", "set", link, "down")


def command_in(name: str, command: Sequence[str]) -> list[str]:
    """Return the command line that runs `command` in a namespace."""
    return ["ip", "netns", "exec", _space(name), *command]


def namespaces() -> list[str]:
    """Return the names of the nodes with a network, running or not."""
    listed = subprocess.run(["ip", "-j", "netns", "list"], capture_output=True, text=True, check=False)
    prefix, rows = _space(""), json.loads(listed.stdout or "[]")
    return [row["name"].removeprefix(prefix) for row in rows if row["name"].startswith(prefix)]


def processes(name: str) -> list[psutil.Process]:
    """Return the processes in a node's namespace."""
    command = ["ip", "netns", "pids", _space(name)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    members = []
    for pid in listed.stdout.split():
        try:
            members.append(psutil.Process(int(pid)))
        except psutil.NoSuchProcess:
            continue  # it ended in the meantime
    return members


def end_processes(members: Sequence[psutil.Process], number: signal.Signals, within_s: float) -> None:
    """Send a signal to processes and wait for their end."""
    for process in members:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue  # it ended by itself
    # Not psutil.wait_procs: it waits for zombies too, and those of a killed node may never be reaped.
    ends = time.monotonic() + within_s
    while time.monotonic() < ends and any(_is_running(process) for process in members):
        time.sleep(0.2)


def runs(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return _is_running(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _space(name: str) -> str:
    return f"to-router-{name}"


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
