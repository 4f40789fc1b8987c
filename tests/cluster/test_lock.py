"""The CPU lock holds everything that the project requires; it is installed without a resolver."""

import importlib.metadata
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cluster.local.run import ROOT

LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton", "sentence-transformers"}
"""Required and never imported: the engine's GPU parts, whose builds need CUDA, and the loader of the
encoder's package, of which only the weights are used."""
EXTRAS = ("serve", "cpu", "train", "test", "dev")


def pinned() -> dict[str, str]:
    """Distribution → version."""
    lines = (ROOT / "constraints-cpu.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.split("==", 1) for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version.split(" ")[0] for name, version in pins}


def required() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [Requirement(line) for line in sum((extras[name] for name in EXTRAS), project["dependencies"])]


@pytest.mark.parametrize("requirement", required(), ids=lambda requirement: requirement.name)
def test_the_lock_satisfies_the_projects_requirements(requirement: Requirement) -> None:
    version = pinned().get(canonicalize_name(requirement.name))

    assert version is not None, f"constraints-cpu.txt lacks {requirement.name}"
    assert requirement.specifier.contains(version, prereleases=True)


def test_the_lock_satisfies_its_packages_requirements() -> None:
    pins = pinned()
    missing = {
        f"{name} needs {needed.name}"
        for name in pins
        for line in importlib.metadata.requires(name) or ()
        if (needed := Requirement(line)).marker is None or needed.marker.evaluate({"extra": ""})
        if canonicalize_name(needed.name) not in pins.keys() | LEFT_OUT
    }

    assert not missing


def test_nothing_of_cuda_is_locked() -> None:
    assert not [name for name in pinned() if re.match(r"nvidia-|triton|cuda|torch(vision|audio|codec)", name)]
