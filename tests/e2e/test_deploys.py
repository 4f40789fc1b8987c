"""`serve deploy` on the running application, under load: nothing else restarts, no request is lost."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import psutil
import pytest
import yaml

from cluster.local.run import ROOT, with_port
from cluster.pocket.questions import questions
from router.core import Preferences
from router.policy import Policy
from tests.e2e.conftest import Application

pytestmark = [pytest.mark.e2e, pytest.mark.any_transport]

HELD_OUT = questions("heldout", n=60, seed=23)
WITHIN_S = 180.0
PAUSE_S = 0.25
"""Of a lane between two requests: most of the processors is for the engines that start."""


class Load:
    """Requests to `auto`, one after the other in four lanes, until stopped."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.statuses: list[int | str] = []
        self.policies: set[str] = set()
        self._stop = False

    def run(self) -> None:
        asyncio.run(self._run())

    def stop(self) -> None:
        self._stop = True

    async def _run(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client:
            await asyncio.gather(*(self._lane(client, lane) for lane in range(4)))

    async def _lane(self, client: httpx.AsyncClient, lane: int) -> None:
        number = lane
        while not self._stop:
            query = HELD_OUT[number % len(HELD_OUT)].query
            body = {"model": "auto", "messages": [{"role": "user", "content": query}], "max_tokens": 8}
            try:
                response = await client.post("/v1/chat/completions", json=body)
            except httpx.TransportError as error:
                self.statuses.append(type(error).__name__)
            else:
                self.statuses.append(response.status_code)
                self.policies.add(response.headers.get("x-router-policy", ""))
            number += 4
            await asyncio.sleep(PAUSE_S)


@contextmanager
def load(url: str) -> Iterator[Load]:
    running = Load(url)
    thread = Thread(target=running.run)
    thread.start()
    try:
        yield running
    finally:
        running.stop()
        thread.join(90)


def deploy(application: Application, folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """`serve deploy` the configuration that is running, changed."""
    data = yaml.safe_load(application.config.read_text(encoding="utf-8"))
    change(data)
    file = folder / "changed.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    config, _ = with_port(file, int(application.url.rsplit(":", 1)[1]), folder)
    serve = Path(sys.executable).parent / "serve"
    done = subprocess.run(
        [str(serve), "deploy", str(config)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_AUTH_MODE": "token"},
    )
    assert done.returncode == 0, done.stderr


def processes(*titles: str) -> dict[str, set[int]]:
    """Title → ids of the processes with it."""
    ids: dict[str, set[int]] = {title: set() for title in titles}
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        for title in titles:
            if command.startswith(title):
                ids[title].add(process.info["pid"])
    return ids


ENGINES, INGRESS, ROUTER = (
    "VLLM::EngineCore",
    "ray::ServeReplica:to-router:Ingress",
    "ray::ServeReplica:to-router:Router",
)


def wait_until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not done():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {WITHIN_S:.0f} s")
        time.sleep(0.5)


def answers(application: Application, model: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "What is 12 + 30?"}], "max_tokens": 8}
    return httpx.post(f"{application.url}/v1/chat/completions", json=body, timeout=60)


def replica_of(expert: str) -> str:
    """The title of an expert's replica."""
    return f"ray::ServeReplica:expert-{expert}:Expert"


def test_an_expert_comes_changes_and_goes_and_nothing_else_restarts(
    application: Application, tmp_path: Path
) -> None:
    def with_twin(data: dict[str, Any]) -> None:
        arithmetic = next(app for app in data["applications"] if app["name"] == "expert-arithmetic")
        twin = {**arithmetic, "name": "expert-twin", "args": {**arithmetic["args"], "name": "twin"}}
        data["applications"].append(twin)
        data["applications"][0]["deployments"][0]["user_config"]["experts"]["twin"] = {"app": "expert-twin"}

    def with_twin_and_change(data: dict[str, Any]) -> None:
        with_twin(data)
        with_change(data)

    def with_change(data: dict[str, Any]) -> None:
        atlas = next(app for app in data["applications"] if app["name"] == "expert-atlas")
        atlas["args"] = {**atlas["args"], "engine": {**atlas["args"]["engine"], "max_num_seqs": 16}}

    others = [*(replica_of(name) for name in ("arithmetic", "words", "chat")), INGRESS, ROUTER]
    titles = [*others, replica_of("atlas"), replica_of("twin"), ENGINES]
    before = processes(*titles)
    with load(application.url) as running:
        deploy(application, tmp_path, with_twin)
        wait_until(lambda: answers(application, "twin").status_code == 200, "the new expert answers")
        added = processes(*titles)

        deploy(application, tmp_path, with_twin_and_change)
        wait_until(
            lambda: (
                len(now := processes(replica_of("atlas"))[replica_of("atlas")]) == 1
                and not now & added[replica_of("atlas")]
                and answers(application, "atlas").status_code == 200
            ),
            "the changed expert answers from a new replica",
        )
        changed = processes(*titles)

        deploy(application, tmp_path, with_change)
        wait_until(lambda: answers(application, "twin").status_code == 404, "the expert is gone")
        wait_until(lambda: not processes(replica_of("twin"))[replica_of("twin")], "its replica is gone")
        wait_until(lambda: len(processes(ENGINES)[ENGINES]) == 4, "its engine is gone")
    removed = processes(*titles)

    assert all(len(before[title]) == 1 for title in others)
    assert all(now[title] == before[title] for now in (added, changed, removed) for title in others)
    assert added[replica_of("atlas")] == before[replica_of("atlas")]
    assert added[replica_of("twin")] == changed[replica_of("twin")] != set()
    assert len(before[ENGINES] - changed[ENGINES]) == 1
    assert removed[replica_of("twin")] == set()
    assert removed[replica_of("atlas")] == changed[replica_of("atlas")]
    assert set(running.statuses) == {200}
    assert len(running.statuses) > 20
    print(f"added, changed and removed under {len(running.statuses)} requests, 0 lost")  # noqa: T201 - with -s


def router_part(application: Application) -> dict[str, Any]:
    """The router in the response of `/ready`."""
    part: dict[str, Any] = httpx.get(f"{application.url}/ready").json()["parts"]["router"]
    return part


def test_a_policy_is_swapped_under_load_and_a_corrupt_one_rejected(
    application: Application, tmp_path: Path
) -> None:
    def serving(folder: Path) -> Callable[[dict[str, Any]], None]:
        def change(data: dict[str, Any]) -> None:
            data["applications"][0]["deployments"][1]["user_config"]["policy"] = str(folder)

        return change

    old = Policy.load(ROOT / "cluster" / "local" / "policy")
    new = replace(old, preferences=Preferences(cost_weight=0.11)).save(tmp_path / "new", old.card)
    replace(old, preferences=Preferences(cost_weight=0.12)).save(tmp_path / "corrupt", old.card)
    weights = tmp_path / "corrupt" / "router.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"tampered")
    before = processes(INGRESS, ROUTER)
    with load(application.url) as running:
        deploy(application, tmp_path, serving(tmp_path / "new"))
        wait_until(
            lambda: answers(application, "auto").headers.get("x-router-policy") == new.policy_id, "the swap"
        )
        deploy(application, tmp_path, serving(tmp_path / "corrupt"))
        # A deploy alone may make a part unready for a short time: wait for this reason.
        wait_until(lambda: "IntegrityError" in router_part(application)["why"], "the rejection is reported")
        status = httpx.get(f"{application.url}/ready").status_code
        served = answers(application, "auto")
        deploy(application, tmp_path, lambda data: None)
        wait_until(lambda: httpx.get(f"{application.url}/ready").status_code == 200, "the old policy is back")

    assert status == 503
    assert served.headers["x-router-policy"] == new.policy_id
    assert running.policies <= {old.policy_id, new.policy_id}
    assert set(running.statuses) == {200}
    assert len(running.statuses) > 20
    assert processes(INGRESS, ROUTER) == before
