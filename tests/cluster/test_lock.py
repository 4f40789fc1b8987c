"""The CPU lock holds everything that the project requires; it is installed without a resolver."""

import importlib.metadata
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cluster.local.run import ROOT
from tests.lock import LOCK, Pin, hashes, pins, renewed, usable

LEFT_OUT = {
    *("torchvision", "torchaudio", "torchcodec", "triton", "sentence-transformers"),
    *("llm", "llama-cpp-python"),
}
"""Required and never imported: the engine's GPU parts, whose builds need CUDA, and the loaders of
the encoder's and the chat model's packages, of which only the weights are used."""
EXTRAS = ("serve", "cpu", "train", "test", "dev")


LOCKED = pins(LOCK.read_text(encoding="utf-8"))


def pinned() -> dict[str, str]:
    """Distribution → version."""
    return {canonicalize_name(pin.name): pin.version for pin in LOCKED}


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
    locked = pinned()
    missing = {
        f"{name} needs {needed.name}"
        for name in locked
        for line in importlib.metadata.requires(name) or ()
        if (needed := Requirement(line)).marker is None or needed.marker.evaluate({"extra": ""})
        if canonicalize_name(needed.name) not in locked.keys() | LEFT_OUT
    }

    assert not missing


def test_nothing_of_cuda_is_locked() -> None:
    assert not [name for name in pinned() if re.match(r"nvidia-|triton|cuda|torch(vision|audio|codec)", name)]


def test_every_pin_has_the_hashes_of_its_wheels() -> None:
    without = [pin.name for pin in LOCKED if not pin.hashes]

    assert without == [], "pip install uv; python -m tests.lock --write"
    assert all(re.fullmatch("[0-9a-f]{64}", one) for pin in LOCKED for one in pin.hashes)
    assert LOCK.read_text(encoding="utf-8") == renewed(LOCK.read_text(encoding="utf-8"), {})


@pytest.mark.parametrize("step", ["Makefile", "cluster/images/cpu.Dockerfile"])
def test_nothing_is_installed_from_the_lock_without_hashes(step: str) -> None:
    text = (ROOT / step).read_text(encoding="utf-8").replace("\\\n", " ")
    installs = [line for line in text.splitlines() if " install " in line and " -r " in line]

    assert installs
    assert all("--require-hashes" in line and "--no-deps" in line for line in installs)


@pytest.mark.parametrize(
    ("wheel", "expected"),
    [
        ("a-1-py3-none-any.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-cp311-cp311-manylinux_2_28_x86_64.whl", True),
        ("a-1-cp312-cp312-manylinux2014_aarch64.manylinux_2_17_aarch64.whl", True),
        ("a-1-cp39-abi3-manylinux_2_28_x86_64.whl", True),
        ("a-1-cp310-cp310-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp313-abi3-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp311-cp311-musllinux_1_2_x86_64.whl", False),
        ("a-1-cp311-cp311-macosx_11_0_arm64.whl", False),
        ("a-1-cp311-cp311-win_amd64.whl", False),
    ],
)
def test_only_wheels_that_an_installation_can_take_count(wheel: str, expected: bool) -> None:
    assert usable(wheel) == expected


def test_hashes_follow_the_index_except_where_it_has_none() -> None:
    index = [{"name": "B_b", "wheels": [
        {"url": "https://index.example/b/B_b-2-py3-none-any.whl", "hashes": {"sha256": "new"}},
        {"url": "https://index.example/b/B_b-2-cp311-cp311-win_amd64.whl", "hashes": {"sha256": "other"}},
    ]}]  # fmt: skip
    lock = "# head\nb-b==2 --hash=sha256:old\na==1+cpu --hash=sha256:mine\n"

    text = renewed(lock, hashes(index))

    assert text == "# head\na==1+cpu --hash=sha256:mine\nb-b==2 --hash=sha256:new\n"
    assert pins(text) == [Pin("a", "1+cpu", ("mine",)), Pin("b-b", "2", ("new",))]
