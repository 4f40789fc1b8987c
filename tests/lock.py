"""The CPU lock: its pins, and the hashes of the files that they may be installed from.

    python -m tests.lock --write

adds hashes to pins that lack them and renews those of changed pins; it needs `uv` (`pip install uv`), which
reads the package index. Only wheels count that CPython 3.11 or 3.12 can take on Linux: no package runs code
at installation.
A pin with a local version, such as torch's, is not on that index: `pip hash` prints the hash of its wheel.
"""

import argparse
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename

LOCK = Path(__file__).resolve().parent.parent / "constraints-cpu.txt"
PYTHONS = (11, 12)
PLATFORM = re.compile(r"any|(linux|manylinux\w*)_(x86_64|aarch64)")


@dataclass(frozen=True, slots=True)
class Pin:
    """One line of the lock."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([f"{self.name}=={self.version}", *(f"--hash=sha256:{one}" for one in self.hashes)])


def pins(text: str) -> list[Pin]:
    """Read the lines of a lock; comments are skipped."""
    found = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement, *options = line.split()
            name, _, version = requirement.partition("==")
            found.append(
                Pin(name, version, tuple(option.removeprefix("--hash=sha256:") for option in options))
            )
    return found


def usable(wheel: str) -> bool:
    """Whether a supported interpreter can install the file on Linux."""
    return any(_fits(tag) for tag in parse_wheel_filename(wheel)[3])


def _fits(tag: Tag) -> bool:
    version = re.fullmatch(r"(?:cp|py)3(\d*)", tag.interpreter)
    if version is None or not PLATFORM.fullmatch(tag.platform):
        return False
    minor = int(version[1] or 0)
    exact = tag.interpreter.startswith("cp") and tag.abi != "abi3" and tag.abi != "none"
    return minor in PYTHONS if exact else minor <= max(PYTHONS)


def hashes(packages: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return the hashes of each package's usable wheels, from the packages of a pylock.toml."""
    return {
        canonicalize_name(package["name"]): tuple(
            sorted(
                wheel["hashes"]["sha256"]
                for wheel in package.get("wheels", [])
                if usable(str(wheel["url"]).rsplit("/", 1)[1])
            )
        )
        for package in packages
    }


def renewed(text: str, known: Mapping[str, tuple[str, ...]]) -> str:
    """Return the lock with the known hashes; a pin that is not among them keeps its own."""
    head = "".join(f"{line}\n" for line in text.splitlines() if line.startswith("#"))
    lines = [
        Pin(pin.name, pin.version, known.get(canonicalize_name(pin.name), pin.hashes)) for pin in pins(text)
    ]
    return head + "".join(f"{line}\n" for line in sorted(lines, key=lambda pin: pin.name.lower()))


def _from_index(locked: Iterable[Pin]) -> dict[str, tuple[str, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        wanted, answer = Path(folder, "in.txt"), Path(folder, "pylock.toml")
        wanted.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in locked), encoding="utf-8")
        command = [
            "uv",
            "pip",
            "compile",
            "--quiet",
            "--no-deps",
            "--universal",
            "--python-version",
            f"3.{min(PYTHONS)}",
        ]
        subprocess.run([*command, "--format", "pylock.toml", "-o", str(answer), str(wanted)], check=True)
        return hashes(tomllib.loads(answer.read_text(encoding="utf-8"))["packages"])


def main() -> None:
    """Write the hashes."""
    parser = argparse.ArgumentParser(prog="python -m tests.lock", description=__doc__)
    parser.add_argument("--write", action="store_true", required=True, help="change constraints-cpu.txt")
    parser.parse_args()
    text = LOCK.read_text(encoding="utf-8")
    known = _from_index(pin for pin in pins(text) if "+" not in pin.version)
    LOCK.write_text(renewed(text, known), encoding="utf-8")


if __name__ == "__main__":
    main()
