"""Images and machine set-ups: what they copy exists, nothing runs as root, no secret travels.

No Docker engine is needed: the files are read, and what an image copies is laid out in a clean folder.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster.kuberay.settings import RenderSettings
from cluster.kuberay.worker_groups import worker_groups
from cluster.packing import demands
from cluster.transport import transport_flags
from tests.cluster.configs import ROOT

IMAGES = sorted((ROOT / "cluster" / "images").glob("*.Dockerfile"))
UNITS = sorted((ROOT / "cluster" / "vm").glob("*.service"))


def instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, its arguments), continued lines joined, comments left out."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split()[0], line.partition(" ")[2]) for line in joined.splitlines() if line.strip()]


def copied(file: Path) -> list[str]:
    """Paths of the repository that an image copies."""
    found = []
    for name, arguments in instructions(file):
        if name == "COPY" and "--from" not in arguments:
            found += [part for part in arguments.split()[:-1] if not part.startswith("--")]
    return found


@pytest.mark.parametrize("file", IMAGES, ids=lambda file: file.name)
def test_an_image_copies_what_is_there_and_not_ignored(file: Path) -> None:
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }

    assert copied(file)
    assert [path for path in copied(file) if not (ROOT / path).exists()] == []
    assert set(copied(file)) <= allowed


@pytest.mark.parametrize("file", IMAGES, ids=lambda file: file.name)
def test_an_image_ends_as_an_ordinary_user_with_a_health_check_and_no_secret(file: Path) -> None:
    steps = instructions(file)

    assert [arguments for name, arguments in steps if name == "USER"][-1] == "1000:100"
    assert any(name == "HEALTHCHECK" for name, _ in steps)
    assert not re.search(r"(TOKEN|PASSWORD|SECRET)\s*=", file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", IMAGES, ids=lambda file: file.name)
def test_packages_are_installed_before_our_code_is_copied(file: Path) -> None:
    steps = [f"{name} {arguments}" for name, arguments in instructions(file)]
    installs = next(n for n, step in enumerate(steps) if step.startswith("RUN") and "pip install" in step)
    code = next(n for n, step in enumerate(steps) if step.startswith("COPY") and "router" in step.split())

    assert installs < code


def test_what_the_cpu_image_copies_is_enough_to_check_its_configuration(tmp_path: Path) -> None:
    for path in copied(IMAGES[0]):
        source = ROOT / path
        if source.is_dir():
            shutil.copytree(source, tmp_path / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / path)
    code = """
import sys
from pathlib import Path
from cluster.check.config import check_file
found = check_file(Path("serve_config.yaml"), policy=False)
print(*found)
sys.exit(any(finding.is_error for finding in found))
"""

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "TO_ROUTER_ROOT": str(tmp_path), "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_a_unit_runs_our_commands_as_an_ordinary_user(file: Path) -> None:
    text = file.read_text(encoding="utf-8")

    assert "\nUser=router\n" in text
    for command in re.findall(r"^ExecStart(?:Pre)?=(\S+)", text, flags=re.MULTILINE):
        assert command.startswith("/opt/to-router/.venv/bin/")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_systemd_understands_a_unit(file: Path, tmp_path: Path) -> None:
    text = re.sub(r"^(Exec\w+)=\S+", r"\1=/bin/true", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for other in UNITS:
        (tmp_path / other.name).write_text("[Service]\nExecStart=/bin/true\n", encoding="utf-8")
    (tmp_path / file.name).write_text(text.replace("User=router\n", ""), encoding="utf-8")

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no",
         str(tmp_path / file.name.replace("@.", "@math."))],
        capture_output=True, text=True, check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )  # fmt: skip

    assert [line for line in done.stderr.splitlines() if file.stem in line] == []


def test_the_machines_of_the_vm_cluster_are_the_pools_of_its_configuration() -> None:
    cluster = yaml.safe_load((ROOT / "cluster" / "vm" / "ray-cluster.yaml").read_text(encoding="utf-8"))
    config = yaml.safe_load((ROOT / "cluster" / "reference" / "gpu.yaml").read_text(encoding="utf-8"))
    types = cluster["available_node_types"]

    for group in worker_groups(demands(config), RenderSettings()):
        machine = types[group.name]
        assert machine["labels"] == group.labels
        assert machine["resources"].get("GPU", 0) >= group.gpus
        assert (machine["min_workers"], machine["max_workers"]) >= (group.low, group.high) or (
            group.name == "ingress"
        )
        assert set(group.custom) <= machine["resources"].keys()


def test_the_vm_cluster_is_what_the_installed_ray_takes() -> None:
    import json
    from importlib.util import find_spec

    import jsonschema

    spec = find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    schema = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text("utf-8"))
    cluster = yaml.safe_load((ROOT / "cluster" / "vm" / "ray-cluster.yaml").read_text(encoding="utf-8"))

    assert [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(cluster)] == []


def test_docker_reads_the_flags_where_ray_puts_them_on_the_host() -> None:
    from ray.autoscaler.sdk import get_docker_host_mount_location

    cluster = yaml.safe_load((ROOT / "cluster" / "vm" / "ray-cluster.yaml").read_text(encoding="utf-8"))
    (mounted,) = [
        path for path, source in cluster["file_mounts"].items() if source == "cluster/transport.env"
    ]
    (option,) = [o for o in cluster["docker"]["run_options"] if o.startswith("--env-file")]

    assert option == f"--env-file {get_docker_host_mount_location(cluster['cluster_name'])}{mounted}"


def test_the_flags_of_the_transport_are_a_file_that_docker_and_systemd_read() -> None:
    text = (ROOT / "cluster" / "transport.env").read_text(encoding="utf-8")

    assert transport_flags()
    assert all(re.fullmatch(r"(#.*|\w+=\S+|)", line) for line in text.splitlines())


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_a_unit_starts_only_with_rays_token(file: Path) -> None:
    text = file.read_text(encoding="utf-8")

    (environment,) = re.findall(r"^Environment=(RAY_AUTH_MODE=.*)$", text, flags=re.MULTILINE)
    assert environment == "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/etc/to-router/ray-token"


def test_every_node_of_the_vm_cluster_needs_the_token() -> None:
    cluster = yaml.safe_load((ROOT / "cluster" / "vm" / "ray-cluster.yaml").read_text(encoding="utf-8"))

    assert transport_flags()["RAY_AUTH_MODE"] == "token"
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.mark.parametrize("command", [["start", "--head", "--port=0"], ["start", "--address=127.0.0.1:9"]])
def test_ray_does_not_start_without_its_token(command: list[str], tmp_path: Path) -> None:
    env = {**os.environ, **transport_flags(), "HOME": str(tmp_path)}
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        env.pop(name, None)

    done = subprocess.run(
        [str(Path(sys.executable).parent / "ray"), *command],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "Token authentication is enabled" in done.stdout + done.stderr


@pytest.mark.parametrize("unit", ["to-router-head", "to-router-node@"])
def test_haproxys_admin_socket_is_in_a_private_folder(unit: str) -> None:
    text = (ROOT / "cluster" / "vm" / f"{unit}.service").read_text(encoding="utf-8")
    places = re.findall(r"RAY_SERVE_HAPROXY_(?!BINARY)\w+=(\S+)", text)

    assert "\nRuntimeDirectory=to-router\nRuntimeDirectoryMode=0700\n" in text
    assert len(places) == 5
    assert all(place.startswith("/run/to-router") for place in places)
