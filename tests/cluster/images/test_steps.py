"""The steps of the CPU image without Docker (slow): built in a clean folder, served from it by another user.

What apt installs in the image must be on this machine already; everything else is the Dockerfile's own.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.configs import ROOT
from tests.cluster.images.test_images import instructions

DOCKERFILE = ROOT / "cluster" / "images" / "cpu.Dockerfile"
PYTHON = "/usr/bin/python3.11"
"""As the image has it: the image's user may run it, unlike one in a home folder."""
UP_WITHIN_S = 400.0
PORT = 8000
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what the image says, and this test does not do
BODY = {"model": "arithmetic", "messages": [{"role": "user", "content": "What is 12 + 30?"}], "max_tokens": 8}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="the image's user can only be taken on by root"),
    pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"{PYTHON}, which every user may run, is not there"),
]


@pytest.fixture
def image() -> Iterator[Path]:
    """The image's file system, as far as the Dockerfile makes it: /app, /venv, /models and a home."""
    with tempfile.TemporaryDirectory(prefix="to-router-image-") as name:
        root = Path(name)
        root.chmod(0o755)
        for folder in ("app", "models", "home"):
            (root / folder).mkdir()
        yield root


def placed(text: str, root: Path) -> str:
    """A command of the Dockerfile with its absolute folders under `root`."""
    text = re.sub(r"(?<![\w/.])/(app|venv|models)\b", rf"{root}/\1", text)
    text = re.sub(r"--mount=\S+ |--extra-index-url \S+ ", "", text)
    return re.sub(r"^\s*python ", f"{PYTHON} ", text)


def build(root: Path) -> None:
    """Follow COPY and RUN; the final stage's copies are there already, its packages and user not needed."""
    for name, arguments in instructions(DOCKERFILE):
        if name == "COPY" and "--from" not in arguments:
            *sources, _ = [part for part in arguments.split() if not part.startswith("--")]
            for source in sources:
                _copy(ROOT / source, root / "app" / source)
        elif name == "RUN" and "pip install" in arguments:
            subprocess.run(["sh", "-ec", placed(arguments, root)], cwd=root / "app", check=True)
    subprocess.run(
        ["chown", "-R", "1000:100", *(str(root / f) for f in ("app", "models", "home"))], check=True
    )


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    else:
        shutil.copy(source, target)


def environment(root: Path) -> dict[str, str]:
    """What ENV sets, and nothing of this process but the way to system programs."""
    env = {"HOME": str(root / "home"), "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    for name, arguments in instructions(DOCKERFILE):
        if name == "ENV":
            for pair in shlex.split(placed(arguments, root)):
                key, _, value = pair.partition("=")
                env[key] = value.replace("$PATH", env["PATH"])
    return env


def last(wanted: str) -> str:
    return [arguments for name, arguments in instructions(DOCKERFILE) if name == wanted][-1]


def test_what_the_image_builds_serves_as_its_user_and_is_healthy(image: Path) -> None:
    build(image)
    env = environment(image)
    # Everything as in the image but the address: this machine's network is not a container's own.
    command = ["127.0.0.1" if word == EVERYWHERE else word for word in json.loads(last("CMD"))]
    health = last("HEALTHCHECK").partition("CMD ")[2]
    assert Path(env["PATH"].split(":")[0], command[0]).exists()

    with (image / "out.log").open("wb") as log:
        process = subprocess.Popen(
            [str(Path(env["PATH"].split(":")[0]) / command[0]), *command[1:]],
            cwd=image / "app", env=env, user=1000, group=100, extra_groups=[], stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        ends = time.monotonic() + UP_WITHIN_S
        while "ready: http" not in (told := (image / "out.log").read_text(encoding="utf-8")):
            assert process.poll() is None, told[-3000:]
            assert time.monotonic() < ends, told[-3000:]
            time.sleep(1)
        healthy = subprocess.run(["sh", "-c", health], env=env, check=False).returncode
        request = urllib.request.Request(
            f"http://127.0.0.1:{PORT}/v1/chat/completions",
            data=json.dumps(BODY).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            body = json.load(answer)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)

    assert healthy == 0
    assert body["choices"][0]["message"]["content"]
